//! Bodies whose digest is signed: another body never gets to an upstream as a whole.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use ring::{digest, hmac};
use tests::http2::client::request;
use tests::http2::{H2Client, H2Origin};
use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, Script, answer, eventually};

const SECRET: &str = "a secret of this suite, which is long enough";
/// RST_STREAM's (RFC 9113 §7).
const CANCEL: u32 = 8;

/// A request's fields with a signature over its digest.
fn signed(digest: &str) -> [(&'static str, String); 3] {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let parameters =
        format!("(\"@method\" \"@path\" \"content-digest\");created={now_s};keyid=\"k1\"");
    let base = format!(
        "\"@method\": POST\n\"@path\": /x\n\"content-digest\": {digest}\n\
         \"@signature-params\": {parameters}"
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let value = BASE64.encode(hmac::sign(&key, base.as_bytes()).as_ref());
    [
        ("content-digest", digest.to_owned()),
        ("signature-input", format!("s={parameters}")),
        ("signature", format!("s=:{value}:")),
    ]
}

fn sha256(body: &str) -> String {
    let value = BASE64.encode(digest::digest(&digest::SHA256, body.as_bytes()).as_ref());
    format!("sha-256=:{value}:")
}

fn sha512(body: &str) -> String {
    let value = BASE64.encode(digest::digest(&digest::SHA512, body.as_bytes()).as_ref());
    format!("sha-512=:{value}:")
}

fn with_signatures(spec: Spec) -> Spec {
    spec.listener("h2c: true")
        .route("auth: signed")
        .also(&format!(
            "consumers: [ {{ name: app, signing_keys: [ {{ id: k1, secret: {{ inline: \"{SECRET}\" }} }} ] }} ]"
        ))
        .also("authenticators: [ { name: signed, signature: { components: [ \"@method\" ] } } ]")
}

/// How a body is sent: in these parts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// All of it with the head.
    Whole,
    /// By HTTP/1, with its length.
    Parts,
    Chunks,
    /// By HTTP/2: with its length, the end of the stream in a frame of its own; and without.
    Frames,
    Open,
    /// By HTTP/2, before the head is looked at.
    Burst,
}

const WAYS: [Way; 6] = [Way::Whole, Way::Parts, Way::Chunks, Way::Frames, Way::Open, Way::Burst];
const PAUSE: Duration = Duration::from_millis(30);

/// Sends `body` with a signature over `digest`: the status, and what the body of the answer says.
fn send(gateway: &Gateway, way: Way, digest: &str, body: &str) -> (u16, String) {
    let fields = signed(digest);
    if matches!(way, Way::Frames | Way::Open | Way::Burst) {
        let mut client = H2Client::clear(gateway.address());
        let length = body.len().to_string();
        let mut head = request("POST", "/x");
        head.extend(fields.iter().map(|(name, value)| (*name, value.as_str())));
        if way != Way::Open {
            head.push(("content-length", &length));
        }
        let answer = if way == Way::Burst {
            client.ask(&head, body.as_bytes())
        } else {
            let stream = client.begin(&head, false);
            let (one, two) = body.split_at(body.len() / 2);
            for part in [one, two, ""] {
                std::thread::sleep(PAUSE);
                // It may have been refused already.
                if client.body(stream, part.as_bytes(), part.is_empty()).is_err() {
                    break;
                }
            }
            client.answer(stream).unwrap_or_else(|broken| panic!("{way:?}: {broken:?}"))
        };
        return (answer.status, answer.text());
    }
    let mut head = "POST /x HTTP/1.1\r\nHost: a.test\r\n".to_owned();
    for (name, value) in &fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let length = body.len();
    let mut client = gateway.connect();
    let (one, two) = body.split_at(length / 2);
    match way {
        Way::Chunks => {
            client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
            for part in [one, two] {
                std::thread::sleep(PAUSE);
                client.send(format!("{:x}\r\n{part}\r\n", part.len()));
            }
            std::thread::sleep(PAUSE);
            client.send("0\r\n\r\n");
        }
        Way::Parts => {
            client.send(format!("{head}Content-Length: {length}\r\n\r\n{one}"));
            std::thread::sleep(PAUSE);
            client.send(two);
        }
        _ => {
            client.send(format!("{head}Content-Length: {length}\r\n\r\n{body}"));
        }
    }
    let answer = client.response().unwrap_or_else(|broken| panic!("{way:?}: {broken:?}"));
    (answer.status, answer.text())
}

fn assert_refused((status, text): (u16, String), what: &str) {
    assert_eq!(status, 400, "{what}: {text}");
    assert!(text.contains("urn:sluice:problem:digest_mismatch"), "{what}: {text}");
}

/// Too large to be taken whole, and small.
fn bodies() -> [String; 2] {
    ["a body that is signed".to_owned(), "0123456789".repeat(20_000)]
}

#[test]
fn another_body_never_gets_to_an_upstream_as_a_whole() {
    let (origin, shadow) = (Origin::start(|_| answer("taken")), Origin::echo());
    let spec = with_signatures(Spec::to(origin.address()))
        .also_upstream("shadow", shadow.address(), "retry: none")
        .route("mirror: { upstream: shadow, percent: 100 }");
    let gateway = Gateway::single(&spec);
    let (mut right, mut mirrored) = (0, 0);
    for body in bodies() {
        let other = body.replace('0', "O").replace("signed", "Signed");
        for way in WAYS {
            let what = format!("{way:?} of {}", body.len());
            for digest in [sha256(&body), sha512(&body)] {
                assert_eq!(send(&gateway, way, &digest, &body), (200, "taken".into()), "{what}");
                right += 1;
                assert_eq!(origin.last().body, body.as_bytes(), "{what}");
                assert_eq!(origin.last().field("x-consumer-id"), Some("app"));
                let before = origin.seen().len();
                assert_refused(send(&gateway, way, &digest, &other), &what);
                assert_eq!(origin.completed(), right, "{what}");
                if way == Way::Whole && body.len() < 1_000 {
                    assert_eq!(origin.seen().len(), before, "{what} was seen");
                }
            }
            mirrored += if way == Way::Whole && body.len() < 1_000 { 2 } else { 0 };
        }
    }
    // Four ways begin before the rest has come; the large body does so in any case.
    let cut = || origin.seen().into_iter().filter(|seen| !seen.complete).collect::<Vec<_>>();
    assert!(eventually(PATIENCE, || cut().len() >= 2 * 4 + 2 * 6), "{} were cut", cut().len());
    for seen in cut() {
        let length: usize = seen
            .field("content-length")
            .map_or(usize::MAX, |length| length.parse().expect("a length"));
        assert!(seen.body.len() < length, "{} of {length} bytes came", seen.body.len());
    }
    // Those of HTTP/2 may have been whole in time, too.
    assert!(eventually(PATIENCE, || shadow.completed() >= mirrored), "{}", shadow.completed());
    for copy in shadow.seen() {
        assert!(bodies().iter().any(|body| body.as_bytes() == copy.body), "{copy:?}");
    }
    let log = || gateway.access_log().matches("\"digest_mismatch\"").count();
    assert!(eventually(PATIENCE, || log() == right), "{} of {right}", log());
}

#[test]
fn over_http2_its_stream_is_reset() {
    let origin = H2Origin::echo();
    let spec = with_signatures(Spec::to(origin.address())).upstream("protocol: http2");
    let gateway = Gateway::single(&spec);
    for body in bodies() {
        let other = body.replace('0', "O").replace("signed", "Signed");
        for way in WAYS {
            let what = format!("{way:?} of {}", body.len());
            let digest = sha256(&body);
            assert_eq!(send(&gateway, way, &digest, &body).0, 200, "{what}");
            let before = origin.count();
            assert_refused(send(&gateway, way, &digest, &other), &what);
            if !(matches!(way, Way::Whole | Way::Burst) && body.len() < 1_000) {
                let reset = || origin.count() > before && origin.last().reset == Some(CANCEL);
                assert!(eventually(PATIENCE, reset), "{what}: {:?}", origin.last().reset);
            }
        }
    }
    let whole = origin.seen().into_iter().filter(|seen| seen.complete);
    let bodies = bodies();
    assert!(whole.into_iter().all(|seen| bodies.iter().any(|body| body.as_bytes() == seen.body)));
    assert_eq!(origin.accepted(), 1, "the connection goes on");
}

#[test]
fn another_try_gets_no_more_than_the_first() {
    let bad = Origin::raw(|mut wire, _| {
        let _ = wire.head();
        let _ = wire.body(5, &mut |_| {});
        wire.reset();
    });
    let good = Origin::start(|_| answer("taken"));
    let spec = Spec::to(bad.address())
        .target(good.address(), 1)
        .upstream("balance: round_robin, outlier: none")
        .upstream("retry: { methods: any, backoff_base_ms: 1 }");
    let gateway = Gateway::single(&with_signatures(spec));
    let (body, other) = ("0123456789", "012345678X");
    for way in [Way::Parts, Way::Chunks, Way::Frames, Way::Open] {
        for _ in 0..2 {
            assert_eq!(send(&gateway, way, &sha256(body), body), (200, "taken".into()), "{way:?}");
            assert_refused(send(&gateway, way, &sha256(body), other), &format!("{way:?}"));
        }
    }
    assert!(bad.accepted() > 0);
    assert_eq!(good.completed(), 8);
}

#[test]
fn what_cannot_be_compared_is_no_signature_and_nothing_is_a_body_too() {
    let origin = Origin::start(|_| answer("taken"));
    let gateway = Gateway::single(&with_signatures(Spec::to(origin.address())));
    for digest in ["md5=:CY9rzUYh03PK3k6DJie09g==:", "sha-256=:AAAA:", "sha-256=x", "="] {
        assert_eq!(send(&gateway, Way::Whole, digest, "test").0, 401, "{digest}");
    }
    let ask = |digest: &str| {
        let mut text = "POST /x HTTP/1.1\r\nHost: a.test\r\n".to_owned();
        for (name, value) in signed(digest) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let answer = gateway.ask(format!("{text}\r\n"));
        (answer.status, answer.text())
    };
    assert_refused(ask(&sha256("test")), "the body was left out");
    assert_eq!(origin.accepted(), 0);
    assert_eq!(ask(&sha256("")), (200, "taken".into()));
}

#[test]
fn an_answer_that_has_begun_is_cut() {
    let origin = Origin::early(|_| {
        let begun = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun";
        Script::default().send(begun)
    });
    let gateway = Gateway::single(&with_signatures(Spec::to(origin.address())));
    let mut text = "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 8\r\n".to_owned();
    for (name, value) in signed(&sha256("the body")) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut client = gateway.connect();
    client.send(format!("{text}\r\nthe "));
    let (_, head) = client.final_head().expect("a head");
    assert_eq!(head.status(), Ok(200));
    client.send("BODY");
    assert!(eventually(PATIENCE, || gateway.access_log().contains("\"digest_mismatch\"")));
    assert!(eventually(PATIENCE, || origin.open() == 0));
    assert_eq!(origin.completed(), 0);
}
