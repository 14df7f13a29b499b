//! Whether the engine could run a spec: the last word before one is taken.
//!
//! [`crate::spec`] says what it can of a spec by itself, and better, as it has the text at hand.
//! What the engine's own plan refuses beyond that is an error here, at the place of its field.

use std::path::Path;

use contract::snapshot::{self as flat, Snapshot};

use crate::{
    compile::{Inputs, compile},
    keys::Fetched,
    material::{Fault, Material},
    spec::{self, Problem, Severity, Spec},
};

/// Builds the engine's plan of a snapshot and throws it away.
pub type Judge = fn(&Snapshot) -> Result<(), Unfit>;

/// Why the engine cannot take a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// `listener`, `upstream`, `route`, `authenticator`, `consumer` or `limit policy`.
    pub entity: &'static str,
    pub name: String,
    /// Path of the field inside the entity: of a route in the snapshot's words, such as
    /// `headers[0].value`, of the others in the spec's, such as `tls.certificates[0].key`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

/// A spec with what its files hold.
#[derive(Clone, Debug)]
pub struct Whole {
    /// Its file names are absolute.
    pub spec: Spec,
    pub material: Material,
    /// What was compiled of it to be judged, which need not be compiled again.
    pub auth: Option<flat::Auth>,
}

/// What [`load`] found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// `None` when any problem is an error.
    pub whole: Option<Whole>,
    /// Errors and warnings in the order of the text.
    pub problems: Vec<Problem>,
    /// The spec as such is good, whatever its files are like.
    pub spec: Option<Spec>,
    /// The text with absolute file names.
    pub text: String,
}

/// As [`spec::load_bytes`], with its files read and the engine's judgement on top.
///
/// Relative file names are taken from `directory`; without one they are errors.
pub fn load(file_name: &str, bytes: &[u8], directory: Option<&Path>, judge: Judge) -> Checked {
    if directory.is_none() {
        let loaded = spec::load_quickly(file_name, bytes);
        let checked = judged(loaded, file_name, bytes, None, judge);
        if checked.problems.is_empty() {
            return checked;
        }
    }
    judged(spec::load_bytes(file_name, bytes), file_name, bytes, directory, judge)
}

fn judged(
    mut loaded: spec::Loaded,
    file_name: &str,
    bytes: &[u8],
    directory: Option<&Path>,
    judge: Judge,
) -> Checked {
    let text = String::from_utf8_lossy(bytes);
    let Some(spec) = loaded.spec.take() else {
        let (problems, text) = (loaded.problems, text.into_owned());
        return Checked { whole: None, problems, spec: None, text };
    };
    loaded.spec = Some(spec.clone());
    let (spec, text) = match directory {
        Some(directory) => (spec.rooted(directory), spec::rooted_text(&text, &loaded, directory)),
        None => (spec, text.into_owned()),
    };
    let places = &loaded.places;
    let mut problems = loaded.problems;
    let before = problems.len();
    let mut faults = relative(&spec);
    let mut material = Material::default();
    if faults.is_empty() {
        let now = unix_now();
        (material, faults) = Material::load(&spec, None, now);
    }
    problems.extend(faults.into_iter().map(|fault| fault.problem(file_name, places)));
    let errors = |list: &[Problem]| list.iter().any(|one| one.severity == Severity::Error);
    let mut whole = (!errors(problems.get(before..).unwrap_or_default())).then(|| Whole {
        spec: spec.clone(),
        material,
        auth: None,
    });
    if let Some(found) = &mut whole {
        let snapshot = plain(&found.spec, &found.material);
        match judge(&snapshot) {
            Ok(()) => found.auth = Some(snapshot.auth),
            Err(unfit) => {
                problems.push(problem(file_name, &found.spec, places, unfit));
                whole = None;
            }
        }
    }
    problems.sort_by_key(|problem| (problem.line, problem.column, problem.severity));
    Checked { whole, problems, spec: Some(spec), text }
}

/// A snapshot for questions that do not depend on addresses: nothing is resolved.
pub fn plain(spec: &Spec, material: &Material) -> Snapshot {
    let inputs = Inputs {
        resolve: &|_| Vec::new(),
        material,
        ticket_keys: &[],
        // Any will do: nothing is ever sealed with it.
        cookie_keys: &[[0; 32]],
        fetched: &Fetched::default(),
        before: None,
    };
    compile(spec, 1, 0, &inputs)
}

/// Seconds since the Unix epoch.
pub fn unix_now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn relative(spec: &Spec) -> Vec<Fault> {
    let mut spec = spec.clone();
    let files = spec.files_mut().into_iter();
    files
        .filter(|(_, file)| !Path::new(file).is_absolute())
        .map(|(field, file)| Fault {
            severity: Severity::Error,
            code: "relative-file",
            field,
            value: file.clone(),
            message: format!(
                "`{file}` is relative to a directory that is not known here; write an absolute \
                 name (`sluice apply -f` does it for you)"
            ),
        })
        .collect()
}

fn problem(file: &str, spec: &Spec, places: &spec::Places, unfit: Unfit) -> Problem {
    let Unfit { entity, name, field, problem } = unfit;
    // Of limits the engine speaks as of parts of a whole, and calls a policy's own quota by that name.
    let (entity, field) = match entity {
        "limit policy" => ("limit", field.replace("quota.", "")),
        entity => (entity, field),
    };
    let (at, field) = match entity {
        "limit" => (spec.limits.iter().position(|one| one.name == name), field),
        "api" => (spec.apis.iter().position(|one| one.name == name), field),
        "proto" => (spec.protos.iter().position(|one| one.name == name), field),
        "listener" => (spec.listeners.iter().position(|one| one.name == name), field),
        "upstream" => (spec.upstreams.iter().position(|one| one.name == name), field),
        "consumer" => (spec.consumers.iter().position(|one| one.name == name), field),
        "authenticator" => {
            let at = spec.authenticators.iter().position(|one| one.name == name);
            let kind = at.and_then(|at| spec.authenticators.get(at)).map(|one| one.kind.word());
            // What tokens have in common stands beside the rest in the spec.
            let field = field.strip_prefix("tokens.").unwrap_or(&field);
            (at, format!("{}.{field}", kind.unwrap_or_default()))
        }
        _ => (spec.routes.iter().position(|one| one.name == name), of_spec(&field)),
    };
    let field = at.map_or_else(String::new, |at| format!("{entity}s[{at}].{field}"));
    let mark = places.get(&field);
    Problem {
        severity: Severity::Error,
        file: file.into(),
        line: mark.line,
        column: mark.column,
        field,
        value: Some(name),
        message: format!("the engine cannot take this {entity}: {problem}"),
        code: match entity {
            "route" => "unfit-route",
            "limit" => "unfit-limit",
            "api" => "unfit-api",
            "authenticator" | "consumer" => "unfit-auth",
            _ => "unfit-tls",
        },
        related: None,
    }
}

/// What the spec calls a field of the snapshot's route.
fn of_spec(field: &str) -> String {
    let end = field.find(['[', '.']).unwrap_or(field.len());
    let (head, rest) = field.split_at(end);
    match head {
        "path" | "hosts" | "methods" | "headers" | "query" => format!("match.{field}"),
        "backends" => format!("upstreams{}", rest.strip_suffix(".upstream").unwrap_or(rest)),
        _ => field.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "version: 1\nlisteners: [{name: web, listen: ':8080'}]\n\
        upstreams: [{name: users, targets: ['127.0.0.1:9001']}]\nroutes:\n\
        - {name: one, upstream: users, match: {path: /x}}\n\
        - {name: two, upstream: users, match: {path: /y, hosts: [a.test, b.test]}}\n";

    fn refuse(_: &Snapshot) -> Result<(), Unfit> {
        Err(Unfit {
            entity: "route",
            name: "two".into(),
            field: "hosts[1]".into(),
            problem: "no room".into(),
        })
    }

    #[test]
    fn what_the_engine_refuses_is_an_error_at_its_place() {
        assert!(load("t.yaml", SPEC.as_bytes(), None, |_| Ok(())).whole.is_some());
        let loaded = load("t.yaml", SPEC.as_bytes(), None, refuse);
        assert!(loaded.whole.is_none());
        let text: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            ["t.yaml:6:66: error[unfit-route]: routes[1].match.hosts[1]: the engine cannot take \
              this route: no room (found `two`)"]
        );
    }

    #[test]
    fn what_the_engine_refuses_of_limits_is_an_error_at_its_place() {
        let text = format!(
            "{SPEC}groups: [{{name: g}}]\nlimits:\n- {{name: all, requests: 1, per: 1s}}\n\
             - name: plan\n  by: [{{path: /a}}]\n  requests: 1\n  per: 1s\n  \
             tiers: [{{group: g, windows: [{{requests: 1, per: 1s}}]}}]\n"
        );
        let loaded = spec::load("t.yaml", &text);
        let spec = loaded.spec.unwrap_or_else(|| panic!("{:?}", loaded.problems));
        for (field, told, line) in [
            ("by[0].path", "limits[1].by[0].path", 11),
            ("quota.windows[0].span", "limits[1].windows[0].span", 10),
            ("tiers[0].quota.windows[0].span", "limits[1].tiers[0].windows[0].span", 14),
        ] {
            let (entity, name, problem) = ("limit policy", "plan".into(), "no".into());
            let unfit = Unfit { entity, name, field: field.into(), problem };
            let found = super::problem("t.yaml", &spec, &loaded.places, unfit);
            assert_eq!((found.code, &*found.field, found.line), ("unfit-limit", told, line));
        }
    }

    #[test]
    fn what_the_engine_refuses_of_authenticators_is_an_error_at_its_place() {
        let text = format!(
            "{}authenticators:\n- name: corp\n  jwt:\n    issuer: any\n    audiences: any\n    \
             jwks_url: https://id.example.com/keys\n    groups_claim: groups\n",
            SPEC.replace("upstream: users, match: {path: /x}", "upstream: users, auth: corp")
        );
        let refuse: Judge = |_| {
            Err(Unfit {
                entity: "authenticator",
                name: "corp".into(),
                field: "tokens.groups_claim".into(),
                problem: "no such claim".into(),
            })
        };
        let loaded = load("t.yaml", text.as_bytes(), None, refuse);
        let text: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            ["t.yaml:13:19: error[unfit-auth]: authenticators[0].jwt.groups_claim: the engine \
              cannot take this authenticator: no such claim (found `corp`)"]
        );
    }

    #[test]
    fn the_engine_is_not_asked_about_a_broken_spec() {
        let loaded =
            load("t.yaml", b"version: 2", None, |_| unreachable!("a broken spec has no plan"));
        assert!(loaded.whole.is_none() && !loaded.problems.is_empty());
    }

    #[test]
    fn fields_are_called_as_the_spec_does() {
        for (engine, spec) in [
            ("path", "match.path"),
            ("headers[3].value", "match.headers[3].value"),
            ("rewrite", "rewrite"),
            ("backends[1].upstream", "upstreams[1]"),
            ("backends", "upstreams"),
        ] {
            assert_eq!(of_spec(engine), spec);
        }
    }
}
