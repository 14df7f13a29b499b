use proptest::prelude::*;
use serde_json::json;

use super::facts::Caller;
use super::values::Headers;
use super::*;
use crate::message::{HeadLimits, RequestHead};

fn policy(text: &str) -> Arc<Policy> {
    Memory::default().policy(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

fn problem(text: &str) -> String {
    match Memory::default().policy(text) {
        Ok(_) => panic!("{text}: taken"),
        Err(problem) => problem,
    }
}

const REQUEST: &str = "POST /v1/orders/7?limit=10&q=a%20b&tag=x&tag=y HTTP/1.1\r\n\
    Host: API.example.com:8443\r\nX-Env: prod\r\nAccept: a\r\nAccept: b\r\n\
    X-Consumer-Groups: admin\r\nX-Odd: \u{e4}\r\n\r\n";

/// What `text` says of that request by Ada, a member of two groups.
fn judge(text: &str) -> Result<bool, Unjudged> {
    let claims = json!({
        "sub": "ada", "tenant": "acme", "level": 7, "ratio": 0.5, "admin": true, "nothing": null,
        "big": 18446744073709551615u64, "roles": ["a", "b"], "address": {"city": "Bern", "zip": [3000]},
        "https://example.com/claim": "x",
        "many": vec![0; limits::POLICY_ITEMS + 1],
    });
    let groups = ["staff".into(), "ops".into()];
    let scopes = ["orders:read".into(), "orders:write".into()];
    let caller = Caller {
        id: "ada",
        groups: &groups,
        scopes: &scopes,
        anonymous: false,
        claims: claims.as_object(),
    };
    judge_of(text, Some(caller))
}

fn judge_of(text: &str, caller: Option<Caller<'_>>) -> Result<bool, Unjudged> {
    let policy = policy(text);
    let mut head = RequestHead::new();
    let bytes = REQUEST.as_bytes();
    head.parse(bytes, &HeadLimits::REQUEST).unwrap();
    policy.holds(&facts(&policy, &head, bytes, caller))
}

fn facts<'a>(
    policy: &'a Policy,
    head: &'a RequestHead,
    bytes: &'a [u8],
    caller: Option<Caller<'a>>,
) -> Facts<'a> {
    Facts {
        policy,
        method: head.method(bytes),
        host: head.site.as_ref().unwrap().host.of(bytes),
        path: head.path(bytes),
        query: head.query(bytes).unwrap_or_default(),
        headers: Headers { fields: &head.fields, bytes, trusted: false },
        ip: "192.0.2.7".parse().unwrap(),
        // 2026-03-06, a Friday, 14:30:00.250 UTC.
        wall_ms: 1_772_807_400_250,
        caller,
    }
}

#[test]
fn requests_are_asked_about() {
    for text in [
        r#"request.method == "POST" && request.host == "api.example.com""#,
        r#"request.path.startsWith("/v1/") && request.path == "/v1/orders/7""#,
        r#"request.query.limit == "10" && request.query["q"] == "a b""#,
        r#"int(request.query.limit) <= 100"#,
        r#"has(request.query.q) && !has(request.query.none) && !("none" in request.query)"#,
        r#"request.headers["x-env"] == "prod" && request.headers["X-Env"] == "prod""#,
        r#"request.headers.accept == "a, b" && "accept" in request.headers"#,
        r#"!has(request.headers.cookie) && !("cookie" in request.headers)"#,
        r#"request.ip == "192.0.2.7" && ip_in(request.ip, "192.0.2.0/24")"#,
        r#"!ip_in(request.ip, "10.0.0.0/8") && !ip_in(request.ip, "::/0")"#,
        r#"["10.0.0.0/8", "192.0.2.7"].exists(net, ip_in(request.ip, net))"#,
        r#"request.path.matches("^/v[0-9]+/") && matches(request.path, "orders")"#,
        r#"request.time > timestamp("2026-01-01T00:00:00Z")"#,
        r#"request.time.getFullYear() == 2026 && request.time.getDayOfWeek() == 5"#,
        r#"request.time.getHours() == 14 && request.time.getHours("Europe/Zurich") == 15"#,
        r#"request.time - timestamp("2026-03-06T14:00:00Z") < duration("31m")"#,
        r#"request.path.size() == 12 && size("äö") == 2"#,
        r#"request.method in ["GET", "POST"] ? true : false"#,
    ] {
        assert_eq!(judge(text), Ok(true), "{text}");
    }
}

#[test]
fn callers_are_asked_about() {
    for text in [
        r#"consumer.id == "ada" && consumer.known && !consumer.anonymous"#,
        r#""ops" in consumer.groups && !("admin" in consumer.groups)"#,
        r#"consumer.scopes.all(scope, scope.startsWith("orders:"))"#,
        r#"consumer.groups.exists_one(group, group == "ops") && size(consumer.groups) == 2"#,
        r#"consumer.groups.filter(group, group != "ops") == ["staff"]"#,
        r#"consumer.groups.map(group, group + "!")[1] == "ops!""#,
        r#"claims.tenant == "acme" && claims["tenant"] == "acme" && claims.admin"#,
        r#"claims.level > 5 && claims.level == 7.0 && claims.ratio < 1.0"#,
        r#"claims.big > 0 && claims.big == 18446744073709551615u"#,
        r#"claims.nothing == null && claims.sub != null"#,
        r#"claims.address.city == "Bern" && claims.address.zip[0] == 3000"#,
        r#"has(claims.address.zip) && !has(claims.address.street) && !has(claims.none)"#,
        r#""a" in claims.roles && claims.roles.exists(role, role in consumer.groups || role == "b")"#,
        r#"claims["https://example.com/claim"] == "x" && "tenant" in claims"#,
        r#"claims.address == {"city": "Bern", "zip": [3000]}"#,
        r#"consumer.known || claims.none == 1"#,
        r#"claims.none == 1 || consumer.known"#,
    ] {
        assert_eq!(judge(text), Ok(true), "{text}");
    }
}

#[test]
fn nobody_is_asked_about_as_well() {
    for text in [
        r#"consumer.id == "" && !consumer.known && !consumer.anonymous"#,
        "size(consumer.groups) == 0 && size(consumer.scopes) == 0 && !has(claims.sub)",
    ] {
        assert_eq!(judge_of(text, None), Ok(true), "{text}");
    }
    let anonymous = Caller { id: "guest", groups: &[], scopes: &[], anonymous: true, claims: None };
    assert_eq!(judge_of("consumer.anonymous && !consumer.known", Some(anonymous)), Ok(true));
}

#[test]
fn what_cannot_be_judged_is_an_error() {
    for text in [
        r#"claims.none == "x""#,
        "claims.level",
        "claims.tenant > 5",
        "claims.tenant && true",
        "claims.admin.more",
        r#"request.headers.cookie == "x""#,
        // Two of them: which one does the upstream take?
        r#"request.query.tag == "x""#,
        r#"has(request.query.tag)"#,
        r#"int(request.path) == 1"#,
        "1 / 0 == 1",
        "claims.roles[7] == \"a\"",
        r#"ip_in(claims.tenant, "10.0.0.0/8")"#,
        r#"ip_in(request.ip, claims.tenant)"#,
        "size(claims.many) > 0",
        r#"claims.tenant.matches("x") || claims.level.matches("x")"#,
    ] {
        assert_eq!(judge(text), Err(Unjudged), "{text}");
    }
}

#[test]
fn nobody_can_say_of_himself_who_he_is() {
    assert_eq!(judge(r#""x-consumer-groups" in request.headers"#), Ok(false));
    let text = r#"request.headers["X-Consumer-Groups"] == "admin""#;
    assert_eq!(judge(text), Err(Unjudged));
}

#[test]
fn what_is_no_text_is_like_none() {
    assert_eq!(judge(r#"request.headers["x-odd"] == "ä""#), Ok(true), "UTF-8 is text");
    let policy = policy(r#"request.headers["x-odd"] == """#);
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX-Odd: \xff\r\n\r\n";
    let mut head = RequestHead::new();
    head.parse(bytes, &HeadLimits::REQUEST).unwrap();
    assert_eq!(policy.holds(&facts(&policy, &head, bytes, None)), Ok(false));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, told) in [
        ("", ""),
        ("request.method ==", "1:18: "),
        ("true &&\n  requets.method == \"GET\"", "2:3: there is no variable `requets`"),
        ("\"ä\" == \"b\" || x", "1:15: there is no variable `x`"),
        ("request.verb == \"GET\"", "`request` has no `verb`; it has method, host"),
        ("consumer.name == \"a\"", "`consumer` has no `name`; it has id"),
        ("request == 1", "`request` is asked for one of"),
        ("has(request.path)", "`request.path` is always there"),
        ("lower(request.path) == \"a\"", "there is no function `lower`"),
        ("request.path.lower() == \"a\"", "there is no function `lower`"),
        ("math.greatest(1, 2) == 2", "there is no variable `math`"),
        ("contains(request.path, \"a\")", "is called as `x.contains()`"),
        ("request.ip.ip_in(\"10.0.0.0/8\")", "is called as `ip_in(x)`"),
        ("request.path.startsWith()", "takes 2 arguments"),
        ("request.path.startsWith(1)", "does not take a int"),
        ("request.method", "is a string; a policy is true or false"),
        ("request.method == 1", "`==` does not go with string and int"),
        ("request.method in [1, 2]", "`in` does not go with string and list"),
        ("consumer.groups == \"admin\"", "`==` does not go with list and string"),
        ("request.path + 1 == \"a\"", "`+` does not go with string and int"),
        ("consumer.groups + [\"a\"] == []", "`+` does not go with list and list"),
        ("!request.path", "`!` does not go with string"),
        ("request.method.x == 1", "a string has no field `x`"),
        ("request.path.matches(\"(\")", "the pattern cannot be used"),
        ("request.path.matches(\"(a{900}){900}\")", "the pattern cannot be used"),
        ("request.path.matches(request.query.p)", "is written out"),
        ("ip_in(request.ip, \"10.0.0.0/33\")", "is no network"),
        ("ip_in(request.ip, \"10.0.0/8\")", "is no network"),
        ("ip_in(request.ip, \"10.0.0.0/+8\")", "is no network"),
        ("request.headers.all(h, h != \"\")", "goes over a map"),
        ("consumer.groups.all(claims, claims != \"\")", "`claims` is taken"),
        ("consumer.groups.all(a, consumer.scopes.all(b, a != b))", "stands in another loop"),
        ("Policy{}", "there is no type `Policy`"),
        ("claims.?x == 1", "1:"),
        ("optional.of(1).hasValue()", "there is no variable `optional`"),
        ("int", "there is no variable `int`"),
    ] {
        let problem = problem(text);
        assert!(problem.contains(told), "{text}: {problem}");
    }
}

#[test]
fn loops_may_follow_each_other() {
    let text = r#"consumer.groups.filter(g, g != "x").all(g, g != "y") && consumer.scopes.exists(s, true)"#;
    assert_eq!(judge(text), Ok(true));
}

#[test]
fn policies_are_bounded() {
    let long = format!("request.path == \"{}\"", "a".repeat(limits::POLICY_TEXT));
    assert!(problem(&long).contains("bytes long"), "{}", problem(&long));
    for (open, inner, close) in [
        ("(", "true", ")"),
        ("[", "1", "]"),
        ("!", "true", ""),
        ("-", "1", ""),
        ("1+", "1", ""),
        ("", "claims", ".a"),
        ("", "claims", "[0]"),
        ("true?true:", "true", ""),
        ("string(", "1", ")"),
        ("{1:", "1", "}"),
        ("1==", "1", ""),
        ("a.b(", "1", ")"),
    ] {
        let times = (limits::POLICY_TEXT - 10) / (open.len() + close.len());
        let text = format!("{}{inner}{}", open.repeat(times), close.repeat(times));
        // Whatever it says, it says it: the parser does not run out of stack.
        let _ = Memory::default().policy(&text);
        let deep = format!("{}{inner}{}", open.repeat(200), close.repeat(200));
        if !matches!(open, "(" | "!" | "-") {
            problem(&deep);
        }
    }
    let many = vec!["1==1"; 400].join("&&");
    assert!(problem(&many).contains("is too long"), "{}", problem(&many));
}

/// What nests as deep as is allowed is judged on a small stack.
#[test]
fn the_deepest_policy_fits_a_shards_stack() {
    let text = format!("{}true{}", "true ? (".repeat(30), ") : false".repeat(30));
    let run = move || assert_eq!(judge(&text), Ok(true));
    // Frames that are not optimised are larger.
    let stack = if cfg!(debug_assertions) { 2 * 1024 * 1024 } else { 512 * 1024 };
    std::thread::Builder::new().stack_size(stack).spawn(run).unwrap().join().unwrap();
}

#[test]
fn routes_with_the_same_policy_share_it_as_long_as_there_are_any() {
    let memory = Memory::default();
    let one = memory.policy("true").unwrap();
    assert!(Arc::ptr_eq(&one, &memory.policy("true").unwrap()));
    assert!(!Arc::ptr_eq(&one, &memory.policy("true || false").unwrap()));
    memory.sweep();
    assert_eq!(memory.policies.lock().unwrap().len(), 1);
    drop(one);
    memory.sweep();
    assert!(memory.policies.lock().unwrap().is_empty());
}

/// What policies are made of, put together in any way.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "true",
        "1",
        "-1",
        "2u",
        "0.5",
        "\"a\"",
        "b\"a\"",
        "null",
        "request.path",
        "request.time",
        "request.query",
        "request.headers",
        "request.query.tag",
        "consumer.groups",
        "consumer.known",
        "claims",
        "claims.roles",
        "claims.level",
        "claims.none",
        "claims.address",
        "[]",
        "{}",
        "x",
        "duration(\"1h\")",
        "9223372036854775807",
        "\"2026-01-01T00:00:00Z\"",
    ]);
    leaf.prop_map(String::from).prop_recursive(4, 24, 3, |inner| {
        let binary = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "in",
        ]);
        let function = prop::sample::select(vec![
            "size",
            "int",
            "uint",
            "double",
            "string",
            "bytes",
            "bool",
            "timestamp",
            "duration",
            "!",
            "-",
            "has",
        ]);
        let member = prop::sample::select(vec![
            "contains",
            "startsWith",
            "getHours",
            "getDayOfYear",
            "getDate",
            "matches",
        ]);
        let each = prop::sample::select(vec!["all", "exists", "exists_one", "map", "filter"]);
        prop_oneof![
            (inner.clone(), binary, inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (function, inner.clone()).prop_map(|(f, a)| format!("{f}({a})")),
            (inner.clone(), member, inner.clone()).prop_map(|(a, f, b)| format!("{a}.{f}({b})")),
            (inner.clone(), each, inner.clone()).prop_map(|(a, f, b)| format!("{a}.{f}(x, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[{b}]")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            prop::collection::vec(inner, 0..3).prop_map(|all| format!("[{}]", all.join(", "))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// What is taken can be judged: no panic, and no type that the check has not seen coming.
    #[test]
    fn whatever_is_taken_is_judged(text in expression()) {
        if Memory::default().policy(&text).is_ok() {
            let _ = judge(&text);
            let _ = judge_of(&text, None);
        }
    }

    #[test]
    fn no_text_is_too_odd(text in "\\PC{0,60}") {
        let _ = Memory::default().policy(&text);
    }
}
