//! Whether the engine could run a spec: the last word before one is taken.
//!
//! [`crate::spec`] says what it can of a spec by itself, and better, as it has the text at hand.
//! What the engine's own plan refuses beyond that is an error here, at the place of its field.

use contract::snapshot::Snapshot;

use crate::{
    compile::compile,
    spec::{self, Loaded, Problem, Severity, Spec},
};

/// Builds the engine's plan of a snapshot and throws it away.
pub type Judge = fn(&Snapshot) -> Result<(), Unfit>;

/// Why the engine cannot take a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// `listener`, `upstream` or `route`.
    pub entity: &'static str,
    pub name: String,
    /// Path of the field inside the entity: of a route in the snapshot's words, such as
    /// `headers[0].value`, of the others in the spec's, such as `tls.certificates[0].key`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

/// As [`spec::load_bytes`], with the engine's judgement on top.
pub fn load(file_name: &str, bytes: &[u8], judge: Judge) -> Loaded {
    let mut loaded = spec::load_bytes(file_name, bytes);
    let Some(spec) = &loaded.spec else { return loaded };
    // A plan does not depend on addresses: nothing is resolved.
    if let Err(unfit) = judge(&compile(spec, 1, 0, &|_| Vec::new())) {
        let problem = problem(file_name, spec, &loaded.places, unfit);
        loaded.problems.push(problem);
        loaded.spec = None;
    }
    loaded
}

fn problem(file: &str, spec: &Spec, places: &spec::Places, unfit: Unfit) -> Problem {
    let Unfit { entity, name, field, problem } = unfit;
    let (at, field) = match entity {
        "listener" => (spec.listeners.iter().position(|one| one.name == name), field),
        "upstream" => (spec.upstreams.iter().position(|one| one.name == name), field),
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
        code: if entity == "route" { "unfit-route" } else { "unfit-tls" },
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
        assert!(load("t.yaml", SPEC.as_bytes(), |_| Ok(())).spec.is_some());
        let loaded = load("t.yaml", SPEC.as_bytes(), refuse);
        assert!(loaded.spec.is_none());
        let text: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            ["t.yaml:6:66: error[unfit-route]: routes[1].match.hosts[1]: the engine cannot take \
              this route: no room (found `two`)"]
        );
    }

    #[test]
    fn the_engine_is_not_asked_about_a_broken_spec() {
        let loaded = load("t.yaml", b"version: 2", |_| unreachable!("a broken spec has no plan"));
        assert!(loaded.spec.is_none() && !loaded.problems.is_empty());
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
