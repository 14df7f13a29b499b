//! Commands to a running gateway.

use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Failure, Remote, What,
    admin::Admin,
    color,
    offline::{Source, print_json, print_text},
    show,
};
use crate::{
    api::model::{
        ApiKey, Applied, Authenticator, Certificate, Consumer, LimitBucket, Listener, Route,
        Running, Status, Upstream,
    },
    diff::Diff,
    entry::EngineEntry,
    explain::{Explanation, Question},
    exposition,
    store::RevisionLine,
};

pub fn apply(
    file: &Path,
    message: &str,
    dry_run: bool,
    remote: &Remote,
    engine: &EngineEntry,
) -> Result<(), Failure> {
    let source = Source::read(file)?;
    // The same check that control does, with the text at hand to point into.
    let good = source.checked(remote.json, engine)?;
    let author = author();
    let mut query = vec![("message", message), ("author", &author), ("source", &source.name)];
    if dry_run {
        query.push(("dry_run", "true"));
    }
    let applied: Applied = Admin::new(remote)?.post("/v1/apply", &query, &good.text)?;
    match remote.json {
        true => print_json(&applied),
        false => print_text(&show::applied(&applied)),
    }
    Ok(())
}

pub fn rollback(revision: Option<u64>, remote: &Remote) -> Result<(), Failure> {
    let (author, to) = (author(), revision.map(|id| id.to_string()));
    let mut query = vec![("author", &*author)];
    query.extend(to.as_deref().map(|to| ("to", to)));
    let applied: Applied = Admin::new(remote)?.post("/v1/rollback", &query, "")?;
    match remote.json {
        true => print_json(&applied),
        false => print_text(&show::applied(&applied)),
    }
    Ok(())
}

pub fn diff(file: &Path, remote: &Remote, engine: &EngineEntry) -> Result<(), Failure> {
    let good = Source::read(file)?.checked(remote.json, engine)?;
    let admin = Admin::new(remote)?;
    // Control compares: secrets that stand in the running spec never leave it.
    let diff: Diff = admin.post("/v1/diff", &[], &good.text)?;
    if remote.json {
        print_json(&diff);
    } else if diff.is_empty() {
        let status: Status = admin.get("/v1/status")?;
        print_text(&format!("no difference to revision {}\n", status.revision));
    } else {
        print_text(&diff.to_text(color(&std::io::stdout())));
    }
    Ok(())
}

pub fn get(what: What, consumer: Option<&str>, remote: &Remote) -> Result<(), Failure> {
    if consumer.is_some() && !matches!(what, What::Limits) {
        return Err(Failure::new(super::exit::BAD_SPEC, "--consumer goes with `get limits` only"));
    }
    match what {
        What::Routes => list::<Route>("/v1/routes", remote, show::routes),
        What::Upstreams => list::<Upstream>("/v1/upstreams", remote, show::upstreams),
        What::Listeners => list::<Listener>("/v1/listeners", remote, show::listeners),
        What::Certificates => list::<Certificate>("/v1/certificates", remote, show::certificates),
        What::Authenticators => {
            list::<Authenticator>("/v1/authenticators", remote, show::authenticators)
        }
        What::Consumers => list::<Consumer>("/v1/consumers", remote, show::consumers),
        What::Keys => list::<ApiKey>("/v1/keys", remote, show::keys),
        What::Limits => {
            let query: Vec<_> = consumer.map(|name| ("consumer", name)).into_iter().collect();
            let rows: Vec<LimitBucket> = Admin::new(remote)?.get_with("/v1/limits", &query)?;
            match remote.json {
                true => print_json(&rows),
                false => print_text(&show::limits(&rows, color(&std::io::stdout()))),
            }
            Ok(())
        }
        What::Revisions => list::<RevisionLine>("/v1/revisions", remote, show::revisions),
        What::Spec => {
            let running: Running = Admin::new(remote)?.get("/v1/spec")?;
            match remote.json {
                true => print_json(&running.spec),
                false => print_text(&running.source),
            }
            Ok(())
        }
    }
}

fn list<T: Serialize + DeserializeOwned>(
    path: &str,
    remote: &Remote,
    show: fn(&[T], bool) -> String,
) -> Result<(), Failure> {
    let rows: Vec<T> = Admin::new(remote)?.get(path)?;
    match remote.json {
        true => print_json(&rows),
        false => print_text(&show(&rows, color(&std::io::stdout()))),
    }
    Ok(())
}

pub fn status(remote: &Remote) -> Result<(), Failure> {
    let status: Status = Admin::new(remote)?.get("/v1/status")?;
    match remote.json {
        true => print_json(&status),
        false => print_text(&show::status(&status, color(&std::io::stdout()))),
    }
    Ok(())
}

pub fn explain(question: &Question, all: bool, remote: &Remote) -> Result<(), Failure> {
    let body = serde_json::to_string(question)?;
    let explanation: Explanation = Admin::new(remote)?.post("/v1/explain", &[], &body)?;
    match remote.json {
        true => print_json(&explanation),
        false => print_text(&explanation.to_text(all)),
    }
    Ok(())
}

pub fn metrics(remote: &Remote) -> Result<(), Failure> {
    let text = Admin::new(remote)?.get_text("/metrics")?;
    match remote.json {
        true => print_json(&exposition::parse(&text).map_err(Failure::from)?),
        false => print_text(&text),
    }
    Ok(())
}

/// Who is asking, for the list of revisions.
fn author() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "unknown".into())
}
