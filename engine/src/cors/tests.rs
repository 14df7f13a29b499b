use proptest::prelude::*;

use super::*;
use crate::message::HeadLimits;

fn listed(origins: &[&str]) -> snapshot::Cors {
    let origins = origins.iter().map(|origin| origin.to_string()).collect();
    snapshot::Cors { origins: snapshot::Origins::Listed(origins), ..Default::default() }
}

fn build(from: &snapshot::Cors) -> Cors {
    Cors::build(from, &[], false).unwrap()
}

fn allows(cors: &Cors, origin: &str) -> bool {
    cors.share(Some(origin.as_bytes()), &mut Vec::new())
}

type Fields = Vec<(&'static str, Vec<u8>)>;

fn value<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    let mut found = fields.iter().filter(|(known, _)| *known == name);
    let value = found.next().map(|(_, value)| str::from_utf8(value).unwrap());
    assert!(found.next().is_none(), "{name} twice");
    value
}

/// What a preflight with these lines is answered.
fn answer(cors: &Cors, lines: &str) -> Fields {
    let text = format!("OPTIONS /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let mut head = RequestHead::new();
    head.parse(text.as_bytes(), &HeadLimits::REQUEST).unwrap();
    let method = preflight(&head, text.as_bytes()).expect("a preflight");
    let mut out = Fields::new();
    cors.answer(&read(&head, text.as_bytes(), method), &mut out);
    out
}

const ORIGIN: &str = "Origin: https://app.example.com\r\n";

#[test]
fn what_is_no_preflight_goes_on() {
    let is_preflight = |line: &str, fields: &str| {
        let text = format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::new();
        head.parse(text.as_bytes(), &HeadLimits::REQUEST).unwrap();
        preflight(&head, text.as_bytes()).is_some()
    };
    let asked = "Access-Control-Request-Method: PUT\r\n";
    assert!(is_preflight("OPTIONS /", &format!("{ORIGIN}{asked}")));
    assert!(!is_preflight("GET /", &format!("{ORIGIN}{asked}")));
    assert!(!is_preflight("OPTIONS /", ORIGIN) && !is_preflight("OPTIONS /", asked));
    assert!(!is_preflight("OPTIONS /", &format!("{ORIGIN}Access-Control-Request-Method: P T\r\n")));
}

#[test]
fn origins_are_compared_as_a_whole() {
    let cors = build(&listed(&["https://App.example.com", "http://localhost:3000", "app://x"]));
    for good in ["https://app.example.com", "http://localhost:3000", "app://x"] {
        assert!(allows(&cors, good), "{good}");
    }
    for bad in [
        "http://app.example.com",
        "https://app.example.com:443",
        "https://app.example.com.evil.com",
        "https://xapp.example.com",
        "https://app.example.com/",
        "null",
        "",
    ] {
        assert!(!allows(&cors, bad), "{bad}");
    }
}

#[test]
fn a_star_stands_for_labels_and_nothing_else() {
    let cors = build(&listed(&["https://*.example.com", "https://*.example.org:8443"]));
    for good in ["https://a.example.com", "https://a.b.example.com", "https://a.example.org:8443"] {
        assert!(allows(&cors, good), "{good}");
    }
    for bad in [
        "https://example.com",
        "https://.example.com",
        "https://a..example.com",
        "https://aexample.com",
        "https://evil.com/.example.com",
        "https://evil.com?.example.com",
        "https://evil.com#.example.com",
        "https://u@.example.com",
        "https://evil.com:80.example.com",
        "https://evil.com\\.example.com",
        "https://a.example.com:8443",
        "https://a.example.org",
        "http://a.example.com",
        "https://a.example.com.evil.com",
    ] {
        assert!(!allows(&cors, bad), "{bad}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let unfit = |from: &snapshot::Cors| Cors::build(from, &[], false).unwrap_err().0;
    for bad in [
        "example.com",
        "https://",
        "https://*",
        "https://*.",
        "https://a.com/b",
        "https://*.a.*",
        "*",
    ] {
        assert_eq!(unfit(&listed(&["https://a.com", bad])), "cors.origins[1]", "{bad}");
    }
    let any = snapshot::Cors { credentials: true, ..Default::default() };
    assert_eq!(unfit(&any), "cors.origins");
    let null = snapshot::Cors { credentials: true, ..listed(&["null"]) };
    assert_eq!(unfit(&null), "cors.origins[0]");
    let split = || vec!["x\r\nSet-Cookie: a=b".to_string()];
    assert_eq!(unfit(&snapshot::Cors { expose: split(), ..listed(&[]) }), "cors.expose[0]");
    assert_eq!(unfit(&snapshot::Cors { headers: split(), ..listed(&[]) }), "cors.headers[0]");
    assert_eq!(unfit(&snapshot::Cors { methods: split(), ..listed(&[]) }), "cors.methods[0]");
}

#[test]
fn a_preflight_is_answered_with_what_is_allowed() {
    let cors = build(&snapshot::Cors {
        methods: vec!["GET".into(), "PUT".into()],
        headers: vec!["x-one".into(), "content-type".into()],
        credentials: true,
        max_age_s: 600,
        private_network: true,
        ..listed(&["https://app.example.com"])
    });
    let fields = answer(
        &cors,
        &format!(
            "{ORIGIN}Access-Control-Request-Method: PUT\r\n\
             Access-Control-Request-Headers: content-type, X-One,, x-two\r\n\
             Access-Control-Request-Headers: x-three, x one\r\n\
             Access-Control-Request-Private-Network: true\r\n"
        ),
    );
    assert_eq!(value(&fields, "Access-Control-Allow-Origin"), Some("https://app.example.com"));
    assert_eq!(value(&fields, "Access-Control-Allow-Credentials"), Some("true"));
    assert_eq!(value(&fields, "Access-Control-Allow-Methods"), Some("GET, PUT"));
    assert_eq!(value(&fields, "Access-Control-Allow-Headers"), Some("content-type, X-One"));
    assert_eq!(value(&fields, "Access-Control-Max-Age"), Some("600"));
    assert_eq!(value(&fields, "Access-Control-Allow-Private-Network"), Some("true"));
    assert_eq!(value(&fields, "Vary"), Some("Origin"));
}

#[test]
fn whatever_is_asked_for_is_allowed_where_nothing_is_listed() {
    let cors = build(&snapshot::Cors::default());
    let asked = format!(
        "{ORIGIN}Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: a,B\r\n"
    );
    let fields = answer(&cors, &asked);
    assert_eq!(value(&fields, "Access-Control-Allow-Origin"), Some("*"));
    assert_eq!(value(&fields, "Vary"), None);
    assert_eq!(value(&fields, "Access-Control-Allow-Headers"), Some("a, B"));
    let usual = Some("GET, HEAD, POST, PUT, PATCH, DELETE");
    assert_eq!(value(&fields, "Access-Control-Allow-Methods"), usual);
    let of_route = Cors::build(&snapshot::Cors::default(), &["POST".into()], false).unwrap();
    let fields = answer(&of_route, &asked);
    assert_eq!(value(&fields, "Access-Control-Allow-Methods"), Some("POST"));
    let star = snapshot::Cors { methods: vec!["*".into()], ..Default::default() };
    let fields = answer(&build(&star), &format!("{ORIGIN}Access-Control-Request-Method: LOCK\r\n"));
    assert_eq!(value(&fields, "Access-Control-Allow-Methods"), Some("LOCK"));
    assert_eq!(value(&fields, "Access-Control-Allow-Headers"), None);
}

#[test]
fn other_origins_are_told_nothing() {
    let cors = build(&listed(&["https://app.example.com"]));
    let asked = "Access-Control-Request-Method: PUT\r\n";
    let only_vary = vec![("Vary", b"Origin".to_vec())];
    assert_eq!(answer(&cors, &format!("Origin: https://evil.com\r\n{asked}")), only_vary);
    assert_eq!(answer(&cors, &format!("{ORIGIN}{ORIGIN}{asked}")), only_vary, "two origins");
    let mut out = Fields::new();
    assert!(!cors.share(None, &mut out));
    assert_eq!(out, only_vary, "no origin: caches are told that others get another answer");
}

#[test]
fn names_of_the_field_are_known_in_any_case() {
    assert!(is_ours(b"access-control-allow-origin") && is_ours(b"Access-Control-Max-Age"));
    assert!(!is_ours(b"access-control") && !is_ours(b"vary") && !is_ours(b""));
}

#[test]
fn grpc_web_sees_its_status() {
    let cors = Cors::build(&snapshot::Cors::default(), &[], true).unwrap();
    assert_eq!(&*cors.expose, b"grpc-status, grpc-message, grpc-status-details-bin");
}

proptest! {
    /// Whatever a client sends, what is said back is one line, and an origin only if it is listed.
    #[test]
    fn nothing_is_echoed_that_is_not_allowed(
        origin in "[ -~]{0,40}",
        headers in "[ -~]{0,60}",
        credentials in any::<bool>(),
    ) {
        let cors = build(&snapshot::Cors { credentials, ..listed(&["https://*.example.com"]) });
        let asked = Preflight {
            origin: Some(origin.as_bytes()),
            method: b"PUT",
            headers: headers.as_bytes().split(|&byte| byte == b',').collect(),
            private_network: false,
        };
        let mut out = Fields::new();
        cors.answer(&asked, &mut out);
        let told = value(&out, "Access-Control-Allow-Origin");
        prop_assert!(told.is_none() || told.unwrap().ends_with(".example.com"));
        for (_, value) in &out {
            prop_assert!(value.iter().all(|byte| !matches!(byte, b'\r' | b'\n' | 0)));
        }
    }
}
