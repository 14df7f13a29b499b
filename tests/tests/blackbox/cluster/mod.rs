//! Several nodes on one PostgreSQL, each on a network of its own; and a control that is killed.

mod canaries;
mod machines;

use std::time::Duration;

use rustix::process::Signal;
use tests::load::{Judge, Load};
use tests::origin::answer;
use tests::process::{self, cli};
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, Response, eventually, get};

use machines::Cluster;

/// The one version that an answer shows.
fn version_of(answer: &Response) -> Result<usize, String> {
    let text = answer.text();
    let version = text.strip_prefix("/v").and_then(|rest| rest.strip_suffix("/x"));
    version
        .and_then(|version| version.parse().ok())
        .ok_or_else(|| format!("{} {text:?}", answer.head.start))
}

#[test]
fn what_is_applied_at_one_node_is_served_by_all() {
    let cluster = Cluster::start(3);
    cluster.all_serve(0);
    for version in 1..=5 {
        let (status, body) = cluster.apply(version % 3, version);
        assert_eq!(status, 200, "{body}");
        cluster.all_serve(version);
    }
    let converged = || {
        let told = cluster.told(0);
        let nodes = told["nodes"].as_array().expect("nodes");
        nodes.len() == 3 && nodes.iter().all(|node| node["state"] == "ok")
    };
    assert!(eventually(PATIENCE, converged), "{}", cluster.told(0));
    let told = cluster.told(1);
    assert_eq!(told["latest"], 6, "{told}");
    let lags: Vec<u64> =
        told["nodes"].as_array().unwrap().iter().filter_map(|n| n["lag_ms"].as_u64()).collect();
    assert_eq!(lags.len(), 3, "{told}");
    eprintln!("from the storing to all shards, in ms: {lags:?}");
    // For people, and with the wait for all nodes.
    let admin = cluster.gateway(0).admin_address();
    let shown = cluster.on(0, || cli(&["status", "--cluster", "--admin", &admin]));
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("node-0 *") && shown.stdout.contains("node-1"), "{shown:?}");
    assert!(!shown.stdout.contains("secret"), "{shown:?}");
}

#[test]
fn without_the_database_traffic_goes_on_and_later_all_catch_up() {
    let mut cluster = Cluster::start(3);
    let (status, body) = cluster.apply(0, 1);
    assert_eq!(status, 200, "{body}");
    cluster.all_serve(1);
    cluster.database.kill();
    let (status, body) = cluster.apply(0, 2);
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("PostgreSQL"), "{body}");
    assert!(!body.contains("secret"), "{body}");
    cluster.all_serve(1);
    // A control process that starts without the database knows what ran.
    let gateway = cluster.gateway(1);
    gateway.kill("control");
    let back = || cluster.on(1, || gateway.is_ready());
    assert!(eventually(PATIENCE, back), "{}", gateway.log_text());
    assert!(gateway.log_text().contains("starting with revision 2"), "{}", gateway.log_text());
    cluster.all_serve(1);
    let told = cluster.told(1);
    assert!(told["store_error"].is_string(), "{told}");
    // And so does a node that is started.
    let gateway = cluster.gateway(0);
    assert!(gateway.dir().join("state/last-revision.json").exists());
    cluster.database.restart();
    let applied = || cluster.apply(0, 3).0 == 200;
    assert!(eventually(PATIENCE, applied), "{}", cluster.gateway(0).log_text());
    cluster.all_serve(3);
}

#[test]
fn a_node_that_is_cut_off_from_the_database_serves_on_and_catches_up() {
    let cluster = Cluster::start(3);
    cluster.all_serve(0);
    for (silent, version) in [(true, 1), (false, 2)] {
        cluster.cut(2, silent);
        let (status, body) = cluster.apply(0, version);
        assert_eq!(status, 200, "{body}");
        for n in [0, 1] {
            assert!(eventually(PATIENCE, || cluster.served(n) == version), "node {n}");
        }
        // What it serves is what it served, and it says that it cannot change.
        assert_eq!(cluster.served(2), version - 1);
        let (status, body) = cluster.apply(2, 9);
        assert_eq!(status, 503, "{body}");
        assert_eq!(cluster.served(2), version - 1);
        cluster.mend(2);
        cluster.all_serve(version);
    }
    // The database stands still: nobody can change anything, and all go on.
    cluster.database.freeze(true);
    let (status, body) = cluster.apply(1, 3);
    assert_eq!(status, 503, "{body}");
    cluster.all_serve(2);
    cluster.database.freeze(false);
    let applied = || cluster.apply(1, 4).0 == 200;
    assert!(eventually(PATIENCE, applied), "{}", cluster.gateway(1).log_text());
    cluster.all_serve(4);
}

/// How often control is killed; `./tests/run control-kills` does it 200 times.
fn kills() -> u64 {
    std::env::var("SLUICE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

#[test]
fn a_control_that_is_killed_while_it_publishes_leaves_the_old_or_the_new() {
    let origin = Origin::start(|seen| answer(&seen.target));
    let version = |n: u64| {
        Spec::to(origin.address()).route(&format!("rewrite: {{ replace_prefix: /v{n} }}")).text()
    };
    let mut gateway = Gateway::start(&version(0));
    // A connection stays on its shard, and a shard never goes back.
    let judge = || -> Judge {
        let mut last = 0;
        Box::new(move |response| {
            let version = version_of(response)?;
            if version < last {
                return Err(format!("version {version} after {last}"));
            }
            last = version;
            Ok(())
        })
    };
    let load = Load::start(gateway.address(), 2, 0, &get("/x"), judge);
    for n in 1..=kills() {
        let pid = gateway.pid_of("control");
        let text = version(n);
        // Any moment of an apply, from before its check to after its answer.
        let pause = Duration::from_micros(n * 7_919 % 40_000);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(pause);
            process::signal(pid, Signal::KILL);
        });
        let file = gateway.spec_file("next.yaml", &text);
        let admin = gateway.admin_address();
        _ = cli(&["apply", "-f", &file.display().to_string(), "--admin", &admin]);
        killer.join().expect("the killer");
        assert!(eventually(PATIENCE, || gateway.is_ready()), "{}", gateway.log_text());
        let now = version_of(&gateway.ask(get("/x"))).expect("an answer") as u64;
        assert!(now <= n, "{now} of {n}");
        // What is stored is what is served.
        let revision = gateway.admin_json("/v1/spec");
        assert!(
            revision["source"].as_str().is_some_and(|text| text.contains(&format!("/v{now} "))),
            "{revision}"
        );
    }
    let last = kills() + 1;
    gateway.apply(&version(last));
    let served = || version_of(&gateway.ask(get("/x"))) == Ok(last as usize);
    assert!(eventually(PATIENCE, served));
    assert!(load.stop_clean() > 0);
}
