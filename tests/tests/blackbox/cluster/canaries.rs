//! Revisions that some nodes try out first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tests::process::cli;
use tests::{PATIENCE, eventually, get};

use super::machines::Cluster;

/// Everybody asks every node while `work` is done.
fn under_load<T>(cluster: &Cluster, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for n in 0..cluster.count() {
            let over = &over;
            scope.spawn(move || {
                let gateway = cluster.gateway(n);
                cluster.on(n, || {
                    while !over.load(Ordering::Relaxed) {
                        gateway.ask(get("/x"));
                        std::thread::sleep(Duration::from_millis(5));
                    }
                });
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn rollout(cluster: &Cluster, n: usize) -> Value {
    let gateway = cluster.gateway(n);
    cluster.on(n, || gateway.admin_json("/v1/rollout"))
}

fn state(cluster: &Cluster, n: usize) -> String {
    rollout(cluster, n)["rollout"]["state"].as_str().unwrap_or_default().into()
}

#[track_caller]
fn ends(cluster: &Cluster, wanted: &str) {
    let ended = || state(cluster, 0) != "watching";
    assert!(eventually(PATIENCE * 3, ended), "{}", rollout(cluster, 0));
    assert_eq!(state(cluster, 0), wanted, "{}", rollout(cluster, 0));
}

#[test]
fn a_canary_that_proves_itself_is_promoted_to_all() {
    let cluster = Cluster::start(3);
    cluster.all_known();
    under_load(&cluster, || {
        // Asked of a node that is no canary.
        let query = "canary=node-2&watch_s=8&min_requests=50&max_p99_ratio=1000";
        let (status, body) = cluster.apply_text(0, query, &cluster.text(1));
        assert_eq!(status, 200, "{body}");
        assert!(body.contains(r#""canaries":["node-2"]"#), "{body}");
        assert!(eventually(PATIENCE, || cluster.served(2) == 1), "{}", rollout(&cluster, 0));
        assert_eq!((cluster.served(0), cluster.served(1)), (0, 0));
        let told = cluster.told(1);
        let canaries: Vec<&Value> = told["nodes"]
            .as_array()
            .expect("nodes")
            .iter()
            .filter(|node| node["canary"] == true)
            .map(|node| &node["name"])
            .collect();
        assert_eq!(canaries, ["node-2"], "{told}");
        // One at a time.
        let (status, body) = cluster.apply(1, 2);
        assert_eq!(status, 409, "{body}");
        assert!(body.contains("sluice rollout"), "{body}");
        // A control process that begins anew knows what its node is to serve.
        for n in [1, 2] {
            let gateway = cluster.gateway(n);
            gateway.kill("control");
            let back = || cluster.on(n, || gateway.is_ready());
            assert!(eventually(PATIENCE, back), "{}", gateway.log_text());
        }
        assert_eq!((cluster.served(1), cluster.served(2)), (0, 1));
        ends(&cluster, "promoted");
        cluster.all_serve(1);
    });
    let gateway = cluster.gateway(0);
    let audit = cluster.on(0, || gateway.admin_json("/v1/audit"));
    assert_eq!(audit[0]["action"], "promoteRollout", "{audit}");
    let (status, body) = cluster.apply(1, 2);
    assert_eq!(status, 200, "{body}");
    cluster.all_serve(2);
}

#[test]
fn a_canary_with_errors_is_rolled_back_by_itself() {
    let cluster = Cluster::start(3);
    cluster.all_known();
    let broken = {
        let port = tests::scratch::free_port();
        let text = cluster.text(1);
        let origin = format!("127.0.0.1:{}", cluster.origin());
        assert!(text.contains(&origin), "{text}");
        text.replace(&origin, &format!("127.0.0.1:{port}"))
    };
    under_load(&cluster, || {
        let (status, body) = cluster.apply_text(1, "canary=1&watch_s=600&min_requests=50", &broken);
        assert_eq!(status, 200, "{body}");
        ends(&cluster, "rolled_back");
        cluster.all_serve(0);
    });
    let told = rollout(&cluster, 2);
    let reason = told["rollout"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("answered with 5xx"), "{told}");
    // As a revision of its own, which says why.
    let told = cluster.told(0);
    assert_eq!(told["latest"], 3, "{told}");
    let gateway = cluster.gateway(0);
    let revision = cluster.on(0, || gateway.admin_json("/v1/revisions/3"));
    assert!(
        revision["message"].as_str().is_some_and(|text| text.contains("revision 2 rolled back")),
        "{revision}"
    );
}

#[test]
fn a_person_ends_a_trial_and_pipelines_wait_for_it() {
    let cluster = Cluster::start(3);
    cluster.all_known();
    let gateway = cluster.gateway(0);
    let admin = gateway.admin_address();
    let run = |args: &[&str]| cluster.on(0, || cli(&[args, &["--admin", &admin]].concat()));
    let file = |version: usize| {
        let path = gateway.dir().join(format!("next-{version}.yaml"));
        std::fs::write(&path, cluster.text(version)).expect("a file");
        path.display().to_string()
    };

    let nobody = run(&["rollout", "promote"]);
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert!(nobody.stderr.contains("no revision is on trial"), "{nobody:?}");
    let too_many = run(&["apply", "--yes", "-f", &file(1), "--canary", "3"]);
    assert_eq!(too_many.code, Some(1), "{too_many:?}");
    assert!(too_many.stderr.contains("at most 2"), "{too_many:?}");

    let path = file(1);
    let done = run(&["apply", "--yes", "-f", &path, "--canary", "50%", "--watch", "10m"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("revision 2 is on trial on node-"), "{done:?}");
    let shown = run(&["rollout"]);
    assert!(
        shown.stdout.contains("is on trial on") && shown.stdout.contains("canary"),
        "{shown:?}"
    );
    let done = run(&["rollout", "promote", "-m", "seen enough"]);
    assert!(done.stdout.contains("promoted to all nodes: seen enough"), "{done:?}");
    cluster.all_serve(1);

    let path = file(2);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let words =
                ["apply", "--yes", "-f", &path, "--canary", "1", "--watch", "10m", "--wait"];
            run(&words)
        });
        let begun = || state(&cluster, 0) == "watching";
        assert!(eventually(PATIENCE, begun), "{}", rollout(&cluster, 0));
        let done = run(&["rollout", "abort", "-m", "customers complain"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        let waited = waiting.join().expect("it waited");
        assert_eq!(waited.code, Some(1), "{waited:?}");
        assert!(waited.stdout.contains("customers complain"), "{waited:?}");
    });
    cluster.all_serve(1);
}
