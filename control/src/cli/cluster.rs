//! The nodes that share a store.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{
    Failure, Remote,
    admin::Admin,
    color, exit,
    offline::{count, print_json, print_text},
    show::time,
    table::Table,
};
use crate::api::model::{Applied, Cluster};

/// How often the other nodes are looked at.
const TICK: Duration = Duration::from_millis(100);

/// `sluice status --cluster`.
pub fn status(remote: &Remote) -> Result<(), Failure> {
    let cluster: Cluster = Admin::new(remote)?.get("/v1/cluster")?;
    match remote.json {
        true => print_json(&cluster),
        false => print_text(&text(&cluster, color(&std::io::stdout()))),
    }
    Ok(())
}

/// An apply, and what came of it everywhere.
#[derive(Serialize)]
struct Everywhere<'a> {
    #[serde(flatten)]
    applied: &'a Applied,
    cluster: &'a Cluster,
}

/// Prints `applied` once every node that lives serves it.
///
/// # Errors
/// Some did not within `patience`; what was applied stays applied.
pub fn wait(
    applied: &Applied,
    told: &str,
    patience: Duration,
    remote: &Remote,
) -> Result<(), Failure> {
    let (admin, began) = (Admin::new(remote)?, Instant::now());
    let serves = |cluster: &Cluster| {
        let behind = cluster.nodes.iter().filter(|one| {
            let taken = one.node.served >= applied.revision && one.node.converged;
            one.state != "gone" && !taken
        });
        behind.map(|one| one.node.name.clone()).collect::<Vec<_>>()
    };
    let (cluster, behind) = loop {
        let cluster: Cluster = admin.get("/v1/cluster")?;
        let behind = serves(&cluster);
        if behind.is_empty() && cluster.store_error.is_none() || began.elapsed() >= patience {
            break (cluster, behind);
        }
        std::thread::sleep(TICK);
    };
    match remote.json {
        true => print_json(&Everywhere { applied, cluster: &cluster }),
        false => print_text(&format!("{told}\n{}", text(&cluster, color(&std::io::stdout())))),
    }
    let failed = |why: String| {
        let revision = applied.revision;
        Err(Failure::new(exit::FAILURE, format!("revision {revision} is stored, but {why}")))
    };
    match &cluster.store_error {
        Some(error) => failed(format!("what the other nodes serve is not known: {error}")),
        None if behind.is_empty() => Ok(()),
        None => failed(format!(
            "not served everywhere after {} s: {}",
            patience.as_secs(),
            behind.join(", ")
        )),
    }
}

fn text(cluster: &Cluster, color: bool) -> String {
    let head = ["NODE", "REVISION", "STATE", "CONVERGENCE", "AFTER STORING", "SEEN", "ADMIN"];
    let mut table = Table::new(&head);
    for one in &cluster.nodes {
        let node = &one.node;
        let ms = |ms: u64| time(ms.saturating_mul(1_000));
        table.row([
            format!("{}{}", node.name, if one.own { " *" } else { "" }),
            node.served.to_string(),
            match &node.error {
                Some(error) if one.state == "failed" => format!("failed: {error}"),
                _ if one.canary => format!("{}, canary", one.state),
                _ => one.state.clone(),
            },
            node.convergence_us.map(time).unwrap_or_default(),
            node.lag_ms.map(ms).unwrap_or_default(),
            if one.own { "now".into() } else { format!("{} ago", ms(one.silent_ms)) },
            node.admin.clone(),
        ]);
    }
    let error = match &cluster.store_error {
        Some(error) => format!("error     {error}\n"),
        None => String::new(),
    };
    format!(
        "store     {}\n{error}revision  {}, {}\n\n{}",
        cluster.store,
        cluster.latest,
        count(cluster.nodes.len(), "node"),
        table.render(color)
    )
}
