//! `sluice keys put`, `revoke` and `list`: API keys in a real Redis.

use serde_json::Value;
use tests::process::{Outcome, cli};
use tests::redis::Redis;

/// Runs `sluice keys ARGS --redis URLS`.
fn keys(redis: &[&Redis], args: &[&str]) -> Outcome {
    let urls: Vec<String> = redis.iter().map(|one| one.url()).collect();
    let urls = urls.join(",");
    cli(&[&["keys"], args, &["--redis", &urls]].concat())
}

fn json(outcome: &Outcome) -> Value {
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {outcome:?}"))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}"))
}

#[test]
fn a_key_is_made_listed_and_revoked() {
    let redis = Redis::start();
    let made = keys(&[&redis], &["put", "--consumer", "acme"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    // The key alone, so that a script can take it.
    let key = made.stdout.trim_end();
    assert!(key.starts_with("slk_") && key.len() == 53, "{made:?}");
    assert!(!made.stderr.contains(key), "once is enough");
    let listed = json(&keys(&[&redis], &["list", "--json"]));
    let digest = text(&listed[0], "sha256");
    assert_eq!(text(&listed[0], "consumer"), "acme");
    assert_eq!(text(&listed[0], "prefix"), &key[..10]);
    assert!(listed[0]["expires_ms"].is_null() && listed[0]["last_used_s"].is_null());
    let record = redis.command(&["GET", &format!("sluice:key:{digest}")]);
    assert_eq!(record, format!(r#"{{"consumer":"acme","prefix":"{}"}}"#, &key[..10]));
    assert!(!redis.command(&["KEYS", "*"]).contains(key), "only its hash is stored");

    redis.command(&["SET", &format!("sluice:used:{digest}"), "1700000000"]);
    let listed = keys(&[&redis], &["list"]);
    for part in [&key[..10], "acme", "never", "2023-11-14T22:13:20", digest] {
        assert!(listed.stdout.contains(part), "{part}: {listed:?}");
    }

    let revoked = keys(&[&redis], &["revoke", key]);
    assert_eq!((revoked.code, &*revoked.stdout), (Some(0), &*format!("revoked {digest}\n")));
    assert_eq!(redis.command(&["DBSIZE"]), "0");
    let again = keys(&[&redis], &["revoke", key]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("no key") && !again.text().contains(key), "{again:?}");
    assert_eq!(keys(&[&redis], &["list"]).stdout, "no keys\n");
}

#[test]
fn a_key_can_be_narrowed_and_ends_by_itself() {
    let redis = Redis::start();
    let arguments = [
        "put",
        "--json",
        "--consumer",
        "acme",
        "--scopes",
        "read,write",
        "--groups",
        "gold",
        "--limits",
        "fast",
        "--expires",
        "2d",
        "--prefix",
        "acme",
        "--key-prefix",
        "own*:",
    ];
    let made = json(&keys(&[&redis], &arguments));
    assert!(text(&made, "key").starts_with(text(&made, "prefix")));
    assert!(text(&made, "prefix").starts_with("acme_"));
    let place = format!("own*:{}", text(&made, "sha256"));
    let record: Value = serde_json::from_str(&redis.command(&["GET", &place])).expect("JSON");
    assert_eq!(record["scopes"], serde_json::json!(["read", "write"]));
    assert_eq!(record["groups"], serde_json::json!(["gold"]));
    assert_eq!(text(&record, "limits"), "fast");
    assert_eq!(record["expires_ms"], made["expires_ms"]);
    let left_s: u64 = redis.command(&["TTL", &place]).parse().expect("seconds");
    assert!((172_700..=172_800).contains(&left_s), "{left_s}");
    // Only what begins with the very prefix, and is a digest.
    redis.command(&["SET", "ownx:ab", "{}"]);
    redis.command(&["SET", "own*:ab", "{}"]);
    redis.command(&["SET", &format!("own*:{}", "0".repeat(64)), "nonsense"]);
    let listed = json(&keys(&[&redis], &["list", "--json", "--key-prefix", "own*:"]));
    let listed = listed.as_array().expect("a list");
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!(listed.iter().any(|row| row["sha256"] == made["sha256"]));
    let listed = keys(&[&redis], &["list", "--key-prefix", "own*:"]);
    assert!(listed.stdout.contains("(unfit record)"), "{listed:?}");
    // By its hash, in whatever case.
    let digest = text(&made, "sha256").to_uppercase();
    let revoked = keys(&[&redis], &["revoke", "--key-prefix", "own*:", &digest]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
}

#[test]
fn keys_are_spread_over_servers() {
    let (one, two) = (Redis::start(), Redis::start());
    let both = [&one, &two];
    let made: Vec<String> = (0..24)
        .map(|n| {
            let made = keys(&both, &["put", "--consumer", &format!("c{n:02}")]);
            assert_eq!(made.code, Some(0), "{made:?}");
            made.stdout.trim_end().to_owned()
        })
        .collect();
    let sizes = both.map(|redis| redis.command(&["DBSIZE"]).parse::<u32>().expect("a number"));
    assert!(sizes.iter().sum::<u32>() == 24 && sizes.iter().all(|size| *size > 3), "{sizes:?}");
    let listed = json(&keys(&both, &["list", "--json"]));
    let consumers: Vec<&str> =
        listed.as_array().expect("a list").iter().map(|row| text(row, "consumer")).collect();
    assert_eq!(consumers, (0..24).map(|n| format!("c{n:02}")).collect::<Vec<_>>());
    for key in &made {
        // In another order it is the same place.
        assert_eq!(keys(&[&two, &one], &["revoke", key]).code, Some(0));
    }
    assert!(both.iter().all(|redis| redis.command(&["DBSIZE"]) == "0"));
}

#[test]
fn what_cannot_be_is_said_without_secrets() {
    let redis = Redis::start_with(&["--requirepass", "s3cret"]);
    let at = |url: &str, args: &[&str]| cli(&[&["keys"], args, &["--redis", url]].concat());
    let url = format!("redis://:s3cret@127.0.0.1:{}", redis.port());
    assert_eq!(at(&url, &["put", "--consumer", "acme"]).code, Some(0));
    for (url, args, code) in [
        (&*redis.url(), &["list"][..], None),
        (&*format!("redis://:wr0ng@127.0.0.1:{}", redis.port()), &["list"], Some(3)),
        ("redis://:s3cret@127.0.0.1:1", &["list"], Some(3)),
        ("redis://:s3cret@127.0.0.1:x", &["list"], Some(2)),
        ("http://127.0.0.1", &["list"], Some(2)),
        (&*url, &["put", "--consumer", "a\nb"], Some(2)),
        (&*url, &["put", "--consumer", "a", "--scopes", "a b"], Some(2)),
        (&*url, &["put", "--consumer", "a", "--expires", "soon"], Some(2)),
        (&*url, &["put", "--consumer", "a", "--prefix", "no_good"], Some(2)),
        (&*url, &["put"], Some(2)),
    ] {
        let outcome = at(url, args);
        match code {
            None => assert!(matches!(outcome.code, Some(1 | 3)), "{args:?}: {outcome:?}"),
            code => assert_eq!(outcome.code, code, "{args:?}: {outcome:?}"),
        }
        assert!(!outcome.stderr.is_empty() && !outcome.text().contains("s3cret"), "{outcome:?}");
        assert!(!outcome.text().contains("wr0ng"), "{outcome:?}");
    }
}
