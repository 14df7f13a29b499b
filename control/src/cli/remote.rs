//! Commands to a running gateway.

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Failure, Remote, What,
    admin::Admin,
    color,
    offline::{print_json, print_text},
    show,
};
use crate::{
    api::model::{
        ApiKey, Authenticator, Certificate, Consumer, LimitBucket, Listener, Route, Running,
        Status, Upstream,
    },
    explain::{Explanation, Question},
    exposition,
    store::RevisionLine,
};

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
        What::Cache => super::cache::show(&Admin::new(remote)?.get("/v1/cache")?, remote),
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
