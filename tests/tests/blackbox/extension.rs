//! External processors: shown requests and answers, and heard.

use std::time::{Duration, Instant};

use tests::http2::{H2Client, H2Origin, H2Seen, Reply};
use tests::message::values;
use tests::spec::Spec;
use tests::{Gateway, Origin};

const OK: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];

/// A field of a protobuf message that has a length.
fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// A response of the phase of that number, with the fields that are set and removed, and a body.
fn phase(number: u8, set: &[(&str, &str)], remove: &[&str], body: Option<&[u8]>) -> Vec<u8> {
    let mut mutation = Vec::new();
    for (name, value) in set {
        let header = [field(1, name), field(3, value)].concat();
        mutation.extend(field(1, field(1, header)));
    }
    for name in remove {
        mutation.extend(field(2, name));
    }
    let mut common = field(2, mutation);
    if let Some(body) = body {
        common.extend(field(3, field(1, body)));
    }
    framed(&field(number, field(1, common)))
}

fn said(frames: Vec<u8>) -> impl Fn(&H2Seen) -> Reply + Send + Sync + 'static {
    move |_| Reply::default().request().head(OK).data(frames.clone()).last(&[("grpc-status", "0")])
}

fn gateway(origin: &Origin, processor: &H2Origin, settings: &str) -> Gateway {
    let route = format!("external_processor: {{ upstream: processor{settings} }}");
    let spec = Spec::to(origin.address())
        .listener("h2c: true")
        .also_upstream("processor", processor.address(), "protocol: http2")
        .route(&route);
    Gateway::of(&spec)
}

fn has(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[test]
fn requests_are_shown_and_changed() {
    let frames = phase(
        1,
        &[("x-tier", "gold"), (":path", "/v2/things?n=1"), ("host", "evil"), ("x-bad", "a\r\nb")],
        &["x-secret", "via"],
        None,
    );
    let (origin, processor) = (Origin::echo(), H2Origin::clear(said(frames)));
    let gateway = gateway(&origin, &processor, "");
    let response = gateway.ask(
        "GET /v1/things?q=x HTTP/1.1\r\nHost: a\r\nX-Secret: s\r\nX-Tier: bronze\r\n\
         X-Consumer-Id: forged\r\n\r\n",
    );
    assert_eq!(response.status, 200, "{}", response.text());
    let seen = origin.last();
    assert_eq!(seen.target, "/v2/things?n=1");
    assert_eq!((seen.all("x-tier"), seen.all("x-secret").len()), (vec!["gold"], 0));
    assert_eq!(seen.all("host").len(), 1);
    assert!(!seen.all("host").contains(&"evil") && seen.all("x-bad").is_empty(), "{seen:?}");
    assert_eq!(seen.all("via").len(), 1, "{seen:?}");
    let shown = processor.last();
    assert_eq!(shown.path(), "/envoy.service.ext_proc.v3.ExternalProcessor/Process");
    assert_eq!(values(&shown.fields, "te"), ["trailers"]);
    for text in [":method", "/v1/things?q=x", "x-secret", "bronze", ":authority"] {
        assert!(has(&shown.body, text), "{text}: {:?}", String::from_utf8_lossy(&shown.body));
    }
    assert!(!has(&shown.body, "forged"));
    assert_eq!(gateway.metric("sluice_shard_processor_calls_total"), Some(1.0));
}

#[test]
fn bodies_are_shown_and_replaced_both_ways() {
    let request = [phase(1, &[], &[], None), phase(3, &[], &[], Some(b"changed"))].concat();
    let response = [
        phase(2, &[(":status", "202"), ("x-seen", "1")], &["x-gone"], None),
        phase(4, &[], &[], Some(b"other")),
    ]
    .concat();
    let processor = H2Origin::clear(move |_| {
        // Which of the two it is stands in its body, which is not here yet: both kinds are tried by
        // processors of their own below.
        said(request.clone())(&H2Seen::default())
    });
    let origin = Origin::echo();
    let one = gateway(&origin, &processor, ", request: body");
    let body = "x".repeat(40_000);
    let answer = one
        .ask(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(origin.last().body, b"changed");
    assert!(has(&processor.last().body, &body));
    drop(one);

    let processor = H2Origin::clear(said(response));
    let origin = Origin::start(|_| {
        tests::origin::answer_with("200 OK", "X-Gone: 1\r\nX-Stays: 1\r\n", "what came")
    });
    let two = gateway(&origin, &processor, ", request: nothing, response: body");
    for _ in 0..2 {
        let answer = two.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((answer.status, answer.text().as_str()), (202, "other"));
        assert_eq!((answer.field("x-seen"), answer.field("x-gone")), (Some("1"), None));
        assert_eq!(
            (answer.field("x-stays"), answer.field("content-length")),
            (Some("1"), Some("5"))
        );
    }
    assert!(has(&processor.last().body, "what came"));
    let mut client = H2Client::clear(two.address());
    let stream = client.get("/");
    let answer = client.answer(stream).expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (202, "other"));
}

#[test]
fn a_processor_may_answer_itself() {
    let status = [0x08, 0x93, 0x03];
    let immediate = [
        field(1, status),
        field(2, field(1, field(1, [field(1, "x-why"), field(3, "no")].concat()))),
        field(3, "not today"),
    ];
    let processor = H2Origin::clear(said(framed(&field(7, immediate.concat()))));
    let origin = Origin::echo();
    let gateway = gateway(&origin, &processor, "");
    let mut client = gateway.connect();
    for _ in 0..2 {
        let answer = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
        assert_eq!((answer.status, answer.text().as_str()), (403, "not today"));
        assert_eq!(answer.field("x-why"), Some("no"));
    }
    assert_eq!(origin.seen().len(), 0);
    assert_eq!(gateway.metric("sluice_shard_processor_answers_total"), Some(2.0));
    assert!(tests::eventually(tests::PATIENCE, || gateway
        .access_log()
        .contains("extension_refused")));
}

#[test]
fn one_that_fails_stops_requests_or_not() {
    let slow = || H2Origin::clear(|_| Reply::default().sleep(Duration::from_secs(60)));
    let odd = || H2Origin::clear(said(framed(b"\xff\xff\xff")));
    let refusing = || {
        H2Origin::clear(|_| {
            Reply::default().request().last(&[
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("grpc-status", "13"),
            ])
        })
    };
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (processor, status) in [(slow(), 504), (odd(), 502), (refusing(), 502)] {
        let origin = Origin::echo();
        let closed = gateway(&origin, &processor, ", timeout_ms: 150");
        let begun = Instant::now();
        let answer = closed.ask(get);
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert_eq!(answer.problem().as_deref(), Ok("extension_refused"));
        assert_eq!(
            (origin.seen().len(), closed.metric("sluice_shard_processor_failures_total")),
            (0, Some(1.0))
        );
        drop(closed);
        let open = gateway(&origin, &processor, ", timeout_ms: 150, on_failure: pass");
        assert_eq!(open.ask(get).status, 200);
        assert_eq!(origin.seen().len(), 1);
    }
    // Too large to be shown: not for the processor to decide.
    let (origin, processor) = (Origin::echo(), H2Origin::clear(said(Vec::new())));
    let small =
        gateway(&origin, &processor, ", request: body, max_body_bytes: 10, on_failure: pass");
    let answer = small.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n12345678901");
    assert_eq!((answer.status, origin.seen().len()), (413, 0));
}
