//! When an API key of the spec was used last: asked of the API and the command line, and kept over
//! restarts.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use ring::digest;
use serde_json::Value;
use tests::process::cli;
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, eventually};

const USED: &str = "slk_used-by-the-suite-0123456789";
const IDLE: &str = "slk_idle-for-all-that-is-0123456";

fn hash(key: &str) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, key.as_bytes()).as_ref())
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn get(gateway: &Gateway, key: &str) -> u16 {
    gateway.ask(format!("GET /k HTTP/1.1\r\nHost: a.test\r\nX-API-Key: {key}\r\n\r\n")).status
}

/// Whether the key's hash stands in the store. (In specs it stands in hexadecimal.)
fn is_written(gateway: &Gateway, key: &str) -> bool {
    let hash = digest::digest(&digest::SHA256, key.as_bytes());
    let files = std::fs::read_dir(gateway.dir().join("state")).expect("a state directory");
    files
        .filter_map(|file| std::fs::read(file.ok()?.path()).ok())
        .any(|bytes| bytes.windows(hash.as_ref().len()).any(|window| window == hash.as_ref()))
}

fn row(rows: &Value, name: &str, value: &str) -> Value {
    let mut rows = rows.as_array().expect("rows").iter();
    rows.find(|row| row[name] == value).unwrap_or_else(|| panic!("no {value}")).clone()
}

#[test]
fn the_last_use_of_a_key_is_told_and_kept() {
    let origin = Origin::echo();
    let spec = Spec::to(origin.address())
        .also(&format!(
            "consumers: [ {{ name: app, api_keys: [ {{ prefix: slk_used, sha256: {} }} ] }}, \
             {{ name: other, api_keys: [ {{ prefix: slk_idle, sha256: {} }} ] }} ]",
            hash(USED),
            hash(IDLE)
        ))
        .also("authenticators: [ { name: keys, api_key: { from: [ { header: x-api-key } ] } } ]")
        .also_route("{ name: k, match: { path: /k }, upstream: origin, auth: keys }");
    let gateway = Gateway::of(&spec);
    let admin = gateway.admin_address();
    let last = |key: &str| row(&gateway.admin_json("/v1/keys"), "sha256", &hash(key));
    assert!(last(USED)["last_used_s"].is_null() && last(IDLE)["last_used_s"].is_null());

    let before = now_s();
    // Each connection may be another shard's.
    for _ in 0..8 {
        assert_eq!(get(&gateway, USED), 200);
    }
    assert_eq!(get(&gateway, "slk_nobody-has-this-key"), 401);
    let told = || last(USED)["last_used_s"].as_u64().is_some_and(|used_s| used_s >= before);
    assert!(eventually(PATIENCE, told), "{}", last(USED));
    let used_s = last(USED)["last_used_s"].as_u64().expect("a time");
    assert!(used_s <= now_s(), "{used_s}");
    assert_eq!(last(USED)["prefix"], "slk_used");
    assert!(last(IDLE)["last_used_s"].is_null(), "nobody used it");
    let callers = gateway.admin_json("/v1/consumers");
    assert!(row(&callers, "name", "app")["last_used_s"].as_u64() >= Some(used_s));
    assert!(row(&callers, "name", "other")["last_used_s"].is_null());

    let json = cli(&["get", "keys", "--json", "--admin", &admin]);
    let rows: Value =
        serde_json::from_str(&json.stdout).unwrap_or_else(|e| panic!("{e}: {json:?}"));
    assert!(row(&rows, "consumer", "app")["last_used_s"].as_u64() >= Some(used_s));
    let table = cli(&["get", "keys", "--admin", &admin]);
    assert_eq!(table.code, Some(0), "{table:?}");
    let of = |key: &str| {
        let hash = hash(key);
        let line = table.stdout.lines().find(|line| line.contains(&hash));
        line.unwrap_or_else(|| panic!("{table:?}")).to_owned()
    };
    // 2026-01-31 12:34:56
    assert!(of(USED).contains("never") && of(USED).contains(" 20"), "{table:?}");
    assert!(of(IDLE).contains(" - "), "{table:?}");
    let table = cli(&["get", "consumers", "--admin", &admin]);
    assert!(table.stdout.contains("KEY USED (UTC)"), "{table:?}");

    let control = gateway.pid_of("control");
    assert!(eventually(PATIENCE, || is_written(&gateway, USED)), "{}", gateway.log_text());
    gateway.kill("control");
    let kept = || {
        gateway.find("control").is_some_and(|pid| pid != control)
            && gateway.is_ready()
            && last(USED)["last_used_s"].as_u64() >= Some(used_s)
    };
    assert!(eventually(PATIENCE, kept), "{}", gateway.log_text());

    // Shards tell the new one, too.
    assert_eq!(get(&gateway, IDLE), 200);
    assert!(eventually(PATIENCE, || last(IDLE)["last_used_s"].is_u64()), "{}", last(IDLE));
    assert_eq!(gateway.metric("sluice_records_garbage_total"), Some(0.0));
}
