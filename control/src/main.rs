//! The `sluice` binary: hands the engine's entry points to control, which knows nothing else of it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use contract::snapshot::Snapshot;
use control::{
    cli,
    entry::{EngineEntry, EngineStart},
    explain::{Explanation, Other, Outcome, Question, Share, asked, changes, met},
    fit::Unfit,
};
use engine::{
    limit::policy::{Policies, Scope},
    plan::{Plan, PlanError},
    route::explain,
};

/// A stream of HTTP/2 is a task of its own: its memory comes and goes with each request.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main(EngineEntry {
        run: |start| {
            let EngineStart { bus, segment, cpus } = start;
            engine::run(engine::Start { bus, segment, cpus }).map_err(|error| error.to_string())
        },
        jq: engine::run_jq,
        probe: |shards| engine::probe(shards).map_err(|error| error.to_string()),
        check: |snapshot| match Plan::build(snapshot.clone()) {
            Ok(_) => Ok(()),
            Err(PlanError { entity, name, field, problem }) => {
                Err(Unfit { entity, name, field, problem })
            }
        },
        explain: explain_request,
    })
}

fn explain_request(snapshot: &Snapshot, question: &Question) -> Result<Explanation, String> {
    let request = explain::ExplainRequest {
        method: question.method.clone(),
        host: question.host.clone(),
        path_and_query: question.path_and_query.clone(),
        headers: question.headers.clone(),
    };
    let answer = explain::explain(snapshot.clone(), &request).map_err(|error| error.to_string())?;
    let policies = Policies::build(&snapshot.limits).map_err(|error| error.to_string())?;
    let path = answer.path.as_bytes();
    let fits = |index| {
        let mut by = policies.get(index).into_iter().flat_map(|policy| &policy.by);
        by.all(|scope| match scope {
            Scope::Path(template) => template.values(path).is_some(),
            _ => true,
        })
    };
    let outcome = match answer.outcome {
        explain::Outcome::Matched(matched) => Outcome::Matched {
            limits: met(
                snapshot,
                &matched.route,
                question.consumer.as_deref(),
                question.key.as_deref(),
                fits,
            ),
            asked: asked(snapshot, &matched.route),
            changes: changes(snapshot, &matched.route),
            route: matched.route,
            rewritten: matched.rewritten,
            backends: matched
                .backends
                .into_iter()
                .map(|share| Share { upstream: share.upstream, weight: share.weight })
                .collect(),
        },
        explain::Outcome::NotFound => Outcome::NotFound,
        explain::Outcome::MethodNotAllowed { allow } => Outcome::MethodNotAllowed { allow },
        explain::Outcome::BadPath { problem } => Outcome::BadPath { problem },
    };
    let others = answer.others.into_iter().map(|other| Other {
        route: other.route,
        verdict: other.verdict.as_str().into(),
        why: other.text,
    });
    Ok(Explanation { outcome, path: answer.path, others: others.collect() })
}
