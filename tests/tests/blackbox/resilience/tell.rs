//! What the gateway tells of its upstreams: the command line, the metrics, the access log.

use tests::{Gateway, cli};

use super::*;

fn get_upstreams(gateway: &Gateway, more: &[&str]) -> String {
    let admin = gateway.admin_address();
    let outcome = cli(&[&["get", "upstreams", "--admin", &admin], more].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.text());
    outcome.stdout
}

#[test]
fn how_upstreams_and_targets_stand() {
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    let gateway = Gateway::single(&upstream(&[&bad, &good], &["balance: round_robin", QUICK]));
    assert_eq!(statuses(&ask(&gateway, 4)), [200; 4]);
    bad.turn(reset());
    assert_eq!(statuses(&ask(&gateway, 20)), [200; 20]);
    assert!(eventually(PATIENCE, || state_of(&gateway, &bad) == "ejected"));
    let text = get_upstreams(&gateway, &[]);
    let address = bad.origin.address().to_string();
    let line = text.lines().find(|line| line.contains(&address)).unwrap_or_default();
    assert!(line.contains("ejected") && line.contains("consecutive"), "{text}");
    let json: Value = serde_json::from_str(&get_upstreams(&gateway, &["--json"])).expect("JSON");
    assert!(json.to_string().contains("\"state\":\"ejected\""), "{json}");

    // What is told follows what is done.
    let standing = || standing(&gateway);
    let told = || {
        let target = &standing()["targets"][0];
        standing()["standing"]["live_percent"] == 50 && target["since_ms"].as_u64() > Some(0)
    };
    assert!(eventually(PATIENCE, told), "{}", standing());
    assert_eq!(standing()["standing"]["active_requests"], 0, "{}", standing());
    let target = &standing()["targets"][0];
    assert_eq!(
        (&target["ejections"], &target["share_percent"]),
        (&1.into(), &0.into()),
        "{target}"
    );
    assert_eq!(target["reason"], "consecutive_gateway");

    let (_, metrics) = gateway.admin("/metrics");
    let state = metrics.lines().find(|line| {
        line.starts_with("sluice_target_state{")
            && line.contains(&address)
            && line.contains("state=\"ejected\"")
    });
    assert!(state.is_some_and(|line| line.ends_with(" 1")), "{metrics}");
    // What failed there went elsewhere: three, and one over a connection that had served before.
    let retries = || gateway.metric("sluice_upstream_retries_total");
    assert!(eventually(PATIENCE, || retries() >= Some(3.0)), "{:?}", retries());
    let live = || gateway.metric("sluice_upstream_live_ratio");
    assert!(eventually(PATIENCE, || live() == Some(0.5)), "{:?}", live());
    let tries: Vec<u64> =
        (1..=24).filter_map(|n| log_line(&gateway, n)["attempts"].as_u64()).collect();
    let twice = tries.iter().filter(|&&tries| tries == 2).count();
    assert!((3..=4).contains(&twice), "{tries:?}");
}

#[test]
fn a_new_spec_keeps_what_is_known_of_the_targets_that_stay() {
    let (bad, good) = (Moody::new("bad"), Moody::new("good"));
    let settings = ["balance: round_robin", "retry: none"];
    let mut gateway = Gateway::single(&upstream(&[&bad, &good], &settings));
    bad.turn(reset());
    ask(&gateway, 20);
    assert!(eventually(PATIENCE, || state_of(&gateway, &bad) == "ejected"));
    let third = Moody::new("third");
    gateway.apply(&upstream(&[&bad, &good, &third], &settings).text());
    let used = || {
        ask(&gateway, 3);
        third.seen() > 0
    };
    assert!(eventually(PATIENCE, used));
    assert_eq!(state_of(&gateway, &bad), "ejected");
    bad.origin.forget();
    assert_eq!(statuses(&ask(&gateway, 20)), [200; 20]);
    assert_eq!(bad.seen(), 0);
}
