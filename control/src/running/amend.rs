//! A change of one route of many, without reading and checking all the others again.
//!
//! This is a short cut only: it takes what is certainly good, and leaves everything else to the long
//! way, which also finds the words for what is wrong.

use std::collections::HashSet;
use std::sync::Arc;

use contract::encode::MAX_ROUTES;
use serde_json::Value;

use super::Current;
use crate::{
    check,
    fit::{self, Judge, Whole},
    spec::{
        self, Consumer, Fallback, List, PathMatch, Places, Problems, Route, Spec, Unidentified,
        Upstream,
    },
    store::Delta,
};

/// Specs with fewer routes, upstreams and consumers are handled whole: people can read what is stored
/// then, and it takes no time.
const LARGE: usize = 1_000;

/// What happens to one thing in its list.
#[derive(Clone, Debug)]
pub struct Placing {
    /// Where it was.
    pub take: Option<usize>,
    /// Where it comes, once it is taken out there, and what it is then.
    pub put: Option<(usize, Value)>,
}

/// Whether `spec` is one to be handled in parts.
pub fn is_large(spec: &Spec) -> bool {
    spec.routes.len() + spec.upstreams.len() + spec.consumers.len() >= LARGE
}

/// The running spec with one of its routes changed. `None`: this needs the long way.
pub fn route(current: &Current, placing: &Placing, judge: Judge) -> Option<(Whole, Delta)> {
    let old = match placing.take {
        Some(at) => Some(current.spec.routes.get(at)?),
        None => None,
    };
    // What it is held against may be in files.
    if current.material.is_pending() || old.is_some_and(|old| old.validate.is_some()) {
        return None;
    }
    let mut spec = Spec::clone(&current.spec);
    let list = spec.routes.edit();
    if let Some(at) = placing.take {
        list.remove(at);
    }
    if let Some((at, value)) = &placing.put {
        let route = alone(value)?;
        if *at > list.len() || list.len() >= MAX_ROUTES {
            return None;
        }
        list.insert(*at, Arc::new(route));
        let part = part(&spec, *at);
        let mut problems = Problems::new("");
        check::check(&part, &Places::default(), &mut problems);
        if problems.has_errors() || judge(&fit::plain(&part, &current.material)).is_err() {
            return None;
        }
    }
    let delta = Delta {
        base: current.revision.id,
        list: "routes".into(),
        take: placing.take,
        put: match &placing.put {
            Some((at, _)) => Some((*at, serde_json::to_value(&**spec.routes.get(*at)?).ok()?)),
            None => None,
        },
    };
    Some((Whole { spec, material: (*current.material).clone(), auth: None }, delta))
}

/// A route that is good by itself, with nothing to say about it.
fn alone(value: &Value) -> Option<Route> {
    // A field with nothing behind it is an error that depends on the text.
    let empty = ["auth", "networks", "cors", "external_processor", "validate", "cache"];
    if empty.iter().any(|field| value.get(field).is_some_and(Value::is_null)) {
        return None;
    }
    let mut problems = Problems::new("");
    let route = spec::route_alone(&value.to_string(), &mut problems)?;
    // Of unusual methods all routes together may have so many.
    let usual = |method: &String| spec::scalars::COMMON_METHODS.contains(&method.as_str());
    let plain = route.validate.is_none()
        && route.transcode.is_none()
        && route.aggregate.is_none()
        && route.matches.methods.iter().all(usual);
    (plain && problems.is_empty()).then_some(route)
}

/// The part of a spec that decides whether its route `at` is good, and whether it spoils others:
/// those of the same path, and the upstreams and consumers that they name. A regular expression
/// competes with others, and with routes that take every path.
fn part(spec: &Spec, at: usize) -> Spec {
    let is_regex = |route: &Route| matches!(route.matches.path, PathMatch::Regex(_));
    let is_any = |route: &Route| route.matches.path == PathMatch::default();
    let own = spec.routes.get(at).map(|own| (&own.matches.path, is_regex(own), is_any(own)));
    let routes: Vec<Route> = spec
        .routes
        .iter()
        .filter(|one| {
            own.is_some_and(|(path, regex, any)| {
                one.matches.path == *path || (regex || any) && is_regex(one) || regex && is_any(one)
            })
        })
        .map(|one| Route::clone(one))
        .collect();
    let mut named: HashSet<&str> = HashSet::new();
    for route in &routes {
        named.extend(route.upstreams.iter().map(|one| one.name.as_str()));
        named.extend(route.external_processor.as_ref().map(|one| one.upstream.as_str()));
        let calls = route.aggregate.iter().flat_map(|aggregate| &aggregate.calls);
        named.extend(calls.filter_map(|call| call.upstream.as_deref()));
        named.extend(route.mirror.as_ref().map(|mirror| mirror.upstream.as_str()));
    }
    loop {
        let known = named.len();
        let own = spec.upstreams.iter().filter(|one| named.contains(one.name.as_str()));
        let more = own.filter_map(|one| match &one.fallback {
            Fallback::Upstream(name) => Some(name.as_str()),
            Fallback::Refuse | Fallback::Answer(_) => None,
        });
        let more: Vec<&str> = more.collect();
        named.extend(more);
        if named.len() == known {
            break;
        }
    }
    let anonymous: HashSet<&str> = routes
        .iter()
        .filter_map(|route| match &route.auth.as_ref()?.unidentified {
            Unidentified::As(name) => Some(name.as_str()),
            Unidentified::Refuse | Unidentified::Pass => None,
        })
        .collect();
    let upstreams: List<Upstream> = spec
        .upstreams
        .iter()
        .filter(|one| named.contains(one.name.as_str()))
        .map(|one| Upstream::clone(one))
        .collect();
    let consumers: List<Consumer> = match anonymous.is_empty() {
        true => List::default(),
        false => spec
            .consumers
            .iter()
            .filter(|one| anonymous.contains(one.name.as_str()))
            .map(|one| Consumer::clone(one))
            .collect(),
    };
    Spec { upstreams, consumers, routes: routes.into(), ..spec.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{material::Material, store::Revision};

    const SPEC: &str = "version: 1
listeners: [{name: web, listen: ':8080'}]
authenticators: [{name: keys, api_key: {}}]
consumers: [{name: guest}]
limits: [{name: slow, requests: 1, per: 1s}]
upstreams:
- {name: a, targets: ['127.0.0.1:9001'], fallback: {upstream: b}}
- {name: b, targets: ['127.0.0.1:9002']}
routes:
- {name: one, upstream: a, match: {path: /x}, auth: keys}
- {name: two, upstream: b, match: {path: /x, hosts: [a.test]}}
- {name: three, upstream: b, match: {path: {regex: '/y/[0-9]+'}, hosts: [b.test]}}
- {name: four, upstream: b, match: {path: /z, methods: [GET]}}
";

    fn current() -> Current {
        let loaded = spec::load("t.yaml", SPEC);
        let spec = loaded.spec.unwrap_or_else(|| panic!("{:?}", loaded.problems));
        let revision = Revision {
            id: 7,
            created_ms: 0,
            author: String::new(),
            message: String::new(),
            spec: "".into(),
            source: "".into(),
            source_name: String::new(),
            diff: Value::Null,
        };
        Current {
            revision: revision.into(),
            spec: spec.into(),
            material: Material::default().into(),
            snapshot: Arc::default(),
            convergence: None,
        }
    }

    /// What the short way makes of a change is what the long way does, and what the long way refuses it
    /// leaves alone.
    #[track_caller]
    fn agrees(take: Option<usize>, put: Option<(usize, Value)>) -> bool {
        let current = current();
        let placing = Placing { take, put };
        let mut value = serde_json::to_value(&*current.spec).unwrap();
        let Placing { take, put } = placing.clone();
        let whole = Delta { base: 7, list: "routes".into(), take, put };
        assert!(whole.apply(&mut value));
        let long = spec::load("t.json", &value.to_string()).spec;
        let Some((short, delta)) = route(&current, &placing, |_| Ok(())) else { return false };
        assert_eq!(Some(&short.spec), long.as_ref());
        let mut value = serde_json::to_value(&*current.spec).unwrap();
        assert!(delta.apply(&mut value));
        assert_eq!(value, serde_json::to_value(&short.spec).unwrap());
        true
    }

    #[test]
    fn good_changes_take_the_short_way() {
        let own = |path: Value| json!({"name": "new", "upstream": "a", "match": {"path": path}});
        assert!(agrees(None, Some((0, own(json!("/new"))))));
        assert!(agrees(None, Some((4, own(json!("/x/y"))))));
        assert!(agrees(Some(3), Some((1, json!({"name": "four", "upstream": "a"})))));
        assert!(agrees(Some(0), None) && agrees(Some(3), None));
        let limited = json!({
            "name": "one", "upstreams": [{"name": "a"}, {"name": "b", "weight": 9}],
            "match": {"path": "/x"}, "limits": ["slow"],
            "auth": {"any": ["keys"], "anonymous": "guest"}
        });
        assert!(agrees(Some(0), Some((0, limited))));
        assert!(agrees(None, Some((2, own(json!({"regex": "/n/.*"}))))));
    }

    #[test]
    fn what_is_wrong_or_not_certain_takes_the_long_way() {
        let one = |more: Value| {
            let mut new = json!({"name": "new", "upstream": "a", "match": {"path": "/new"}});
            let fields = new.as_object_mut().unwrap();
            fields.extend(more.as_object().unwrap().clone());
            agrees(None, Some((4, new)))
        };
        assert!(one(json!({})));
        for wrong in [
            json!({"upstream": "nobody"}),
            json!({"limits": ["none"]}),
            json!({"auth": "nobody"}),
            json!({"auth": null}),
            json!({"auth": {"any": ["keys"], "anonymous": "nobody"}}),
            json!({"mirror": {"upstream": "nobody"}}),
            json!({"match": {"path": "no path"}}),
            json!({"match": {"path": "/new", "methods": ["BREW"]}}),
            json!({"unknown": 1}),
            // The same requests as another route, or as others leave.
            json!({"match": {"path": "/x"}}),
            json!({"match": {"path": "/x", "hosts": ["a.test"]}}),
            json!({"match": {"path": "/z", "methods": ["GET"]}}),
            json!({"match": {"path": "/", "hosts": ["b.test"]}}),
            json!({"cors": {"origins": "*", "credentials": true}}),
            json!({"validate": {"body": {"schema": {"inline": {}}}}}),
        ] {
            assert!(!one(wrong.clone()), "{wrong}");
        }
        assert!(route(&current(), &Placing { take: Some(9), put: None }, |_| Ok(())).is_none());
        let judge: Judge = |_| {
            Err(fit::Unfit {
                entity: "route",
                name: String::new(),
                field: String::new(),
                problem: String::new(),
            })
        };
        let put = Some((0, json!({"name": "new", "upstream": "a", "match": {"path": "/new"}})));
        assert!(route(&current(), &Placing { take: None, put }, judge).is_none());
    }
}
