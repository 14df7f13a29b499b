//! What the gateway tells about itself: access log, metrics, health.

use rustix::process::Signal;
use serde_json::Value;
use tests::process;
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, eventually, get};

fn lines(gateway: &Gateway) -> Vec<Value> {
    let log = gateway.access_log();
    // The last line may be half written.
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[test]
fn each_request_is_one_line_of_json() {
    let origin = Origin::echo();
    let gateway = Gateway::of(&Spec::to(origin.address()).matching("hosts: [a.test]"));
    let mut client = gateway.connect();
    let mut ids = Vec::new();
    for n in 0..25 {
        let response = client.ask(get(&format!("/logged/{n}?secret=1")));
        ids.push(response.field("x-request-id").unwrap_or_default().to_owned());
    }
    // Nothing of a hostile request may break a line.
    client.ask("GET /\"}{%22 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    gateway.ask("GET /other HTTP/1.1\r\nHost: b.test\r\n\r\n");
    assert!(
        eventually(PATIENCE, || lines(&gateway).len() >= 27),
        "{} lines",
        lines(&gateway).len()
    );
    let lines = lines(&gateway);
    assert_eq!(lines.len(), 27);
    for (n, id) in ids.iter().enumerate() {
        let line = lines.iter().find(|line| line["request_id"] == id.as_str());
        let line = line.unwrap_or_else(|| panic!("no line for request {n} ({id})"));
        assert_eq!(line["status"], 200, "{line}");
        assert_eq!(line["method"], "GET", "{line}");
        assert_eq!(line["host"], "a.test", "{line}");
        assert_eq!(line["route"], "all", "{line}");
        assert_eq!(line["upstream"], "origin", "{line}");
        assert!(
            line["path"].as_str().is_some_and(|path| path.starts_with(&format!("/logged/{n}"))),
            "{line}"
        );
    }
    let missing = lines.iter().find(|line| line["status"] == 404).expect("the 404's line");
    assert_eq!(missing["reason"], "no_route", "{missing}");
    assert!(lines.iter().any(|line| line["status"] == 400), "the 400's line");
}

#[test]
fn metrics_count_every_request() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let mut client = gateway.connect();
    for _ in 0..50 {
        client.ask(get("/"));
    }
    let counted = || gateway.metric("sluice_requests_total").unwrap_or(0.0);
    assert!(eventually(PATIENCE, || counted() >= 50.0), "{} counted", counted());
    assert_eq!(counted(), 50.0);
    assert_eq!(gateway.metric("sluice_request_duration_seconds_count"), Some(50.0));
    let (_, text) = gateway.admin("/metrics");
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "no sample: {line}");
    }
}

#[test]
fn health_and_readiness() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    assert_eq!(gateway.admin("/healthz").0, 200);
    assert_eq!(gateway.admin("/readyz").0, 200);
    assert_eq!(gateway.admin("/no-such-path").0, 404);
    let status = gateway.admin_json("/v1/status");
    assert_eq!(status["engine"], "ok", "{status}");
    // The data port is no way into it.
    for path in ["/metrics", "/v1/status", "/healthz"] {
        assert_eq!(gateway.ask(get(path)).text(), format!("GET {path}\n"));
    }
}

/// As logrotate does it: move the file, then ask for a new one.
#[test]
fn a_moved_access_log_is_begun_anew_on_sighup() {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    let log = gateway.dir().join("access.jsonl");
    let written = |path: &str| gateway.access_log().contains(path);
    gateway.ask(get("/before"));
    assert!(eventually(PATIENCE, || written("/before")));
    // To control itself, and to `sluice up`, which is what a service manager knows.
    for (n, pid) in [gateway.pid_of("control"), gateway.pid()].into_iter().enumerate() {
        let moved = gateway.dir().join(format!("access.{n}"));
        std::fs::rename(&log, &moved).expect("the log can be moved");
        let old = std::fs::read(&moved).expect("the moved log");
        process::signal(pid, Signal::HUP);
        let path = format!("/after/{n}");
        // The first lines after the signal may still have been on their way into the old file.
        let begun = || {
            gateway.ask(get(&path));
            written(&path)
        };
        assert!(eventually(PATIENCE, begun), "no new log after rotation {n}");
        assert!(std::fs::read(&moved).expect("the moved log").starts_with(&old));
        lines(&gateway);
    }
    assert_eq!(gateway.admin_json("/v1/status")["access_log"]["lines_dropped"], 0);
}

#[test]
fn the_access_log_can_go_to_standard_output_and_be_turned_off() {
    let origin = Origin::echo();
    let spec = Spec::to(origin.address()).text();
    let stdout = spec.replace("{DIR}/access.jsonl", "-");
    let mut gateway = Gateway::start(&stdout);
    gateway.ask(get("/to-stdout"));
    assert!(eventually(PATIENCE, || gateway.log_text().contains("\"path\":\"/to-stdout\"")));
    gateway.apply(&spec.replace("{DIR}/access.jsonl", "off"));
    assert_eq!(gateway.admin_json("/v1/status")["access_log"]["path"], "off");
    gateway.ask(get("/nowhere"));
    // Its record is on its way until it is counted.
    let counted = || gateway.metric("sluice_requests_total") == Some(2.0);
    assert!(eventually(PATIENCE, counted));
    gateway.apply(&spec);
    let back = || {
        gateway.ask(get("/back"));
        gateway.access_log().contains("/back")
    };
    assert!(eventually(PATIENCE, back));
    assert!(!gateway.access_log().contains("/nowhere") && !gateway.log_text().contains("/nowhere"));
}
