//! What commands say for the secrets of a spec that is about to run, and servers for its protos.

use contract::snapshot::Snapshot;

use super::Refused;
use crate::{
    fit::{Whole, unix_now},
    material::{Fault, Material, outside, protos::reflection},
    spec::{Places, Problem, Severity, Spec},
};

/// The spec with what the snapshot that the engine serves was made of.
pub(super) fn recovered(spec: Spec, last: &Snapshot, problems: &[Problem]) -> Whole {
    for problem in problems {
        eprintln!("sluice: {problem}");
    }
    let material = Material::recover(&spec, last);
    Whole { spec, material, auth: None }
}

/// The same with what commands say for secrets, and servers for descriptors, of which nothing is known
/// yet.
pub(super) async fn told(whole: Whole) -> Result<Whole, Refused> {
    if !whole.material.is_pending() {
        return Ok(whole);
    }
    let work = move || {
        let (mut spec, now) = (whole.spec, unix_now());
        let commands = outside::commands(&mut spec);
        let mut faults = outside::run(&commands, now);
        faults.extend(reflection::run(&spec, &whole.material, now));
        let (material, others) = Material::load(&spec, None, now);
        faults.extend(others);
        faults.retain(|fault| fault.severity == Severity::Error);
        (Whole { spec, material, auth: None }, faults)
    };
    let done = tokio::task::spawn_blocking(work).await;
    let (whole, faults) = done.map_err(|error| Refused::Internal(error.to_string()))?;
    match faults.is_empty() {
        true => Ok(whole),
        false => {
            let problem = |fault: Fault| {
                let file = if fault.code == "failed-reflection" { "protos" } else { "secrets" };
                fault.problem(file, &Places::default())
            };
            Err(Refused::Spec(faults.into_iter().map(problem).collect()))
        }
    }
}
