//! gRPC: calls that end with a status. Which are tried again, and what targets have to answer for.

use std::sync::{Arc, Mutex};

use tests::http2::{Answer, H2Client, H2Origin, Reply};
use tests::message::values;
use tests::spec::Spec;
use tests::{Gateway, PATIENCE, eventually};

use super::*;

const OK: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];
const QUESTION: &[u8] = b"\0\0\0\0\x01q";

/// A server that answers every call as it was last told to; well, it answers with its name.
struct Server {
    origin: H2Origin,
    mood: Arc<Mutex<Option<Reply>>>,
}

impl Server {
    fn new(name: &'static str) -> Server {
        let mood = Arc::new(Mutex::new(None::<Reply>));
        let now = mood.clone();
        let origin = H2Origin::clear(move |_| {
            let mood = now.lock().expect("a mood").clone();
            mood.unwrap_or_else(|| answer(name, "0"))
        });
        Server { origin, mood }
    }

    fn turn(&self, mood: Reply) {
        *self.mood.lock().expect("a mood") = Some(mood);
    }

    fn seen(&self) -> usize {
        self.origin.count()
    }
}

/// A message, and the status in trailers.
fn answer(text: &str, code: &str) -> Reply {
    let mut message = vec![0, 0, 0, 0, text.len() as u8];
    message.extend_from_slice(text.as_bytes());
    Reply::default().request().head(OK).data(message).last(&[("grpc-status", code)])
}

/// A status and nothing else, once the request is there.
fn ends(code: &str, more: &[(&str, &str)]) -> Reply {
    let fields = [OK, &[("grpc-status", code)], more].concat();
    Reply::default().request().last(&fields)
}

fn spec(servers: &[&Server], settings: &[&str]) -> Spec {
    let mut spec = Spec::default().listener("h2c: true");
    for server in servers {
        spec = spec.target(server.origin.address(), 1);
    }
    let spec = spec.upstream("protocol: http2, balance: round_robin");
    settings.iter().fold(spec, |spec, setting| spec.upstream(setting))
}

fn call<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = tests::http2::client::request("POST", "/t.T/Call");
    fields.extend([("te", "trailers"), ("content-type", "application/grpc")]);
    fields.extend_from_slice(more);
    fields
}

fn code(answer: &Answer) -> String {
    let all = [values(&answer.trailers, "grpc-status"), values(&answer.fields, "grpc-status")];
    all.concat().join(",")
}

/// The statuses of so many calls one after the other.
fn codes(gateway: &Gateway, n: usize, more: &[(&str, &str)]) -> Vec<String> {
    let mut client = H2Client::clear(gateway.address());
    (0..n).map(|_| code(&client.ask(&call(more), QUESTION))).collect()
}

fn count(codes: &[String], code: &str) -> usize {
    codes.iter().filter(|one| *one == code).count()
}

const TWICE: &str =
    "outlier: none, retry: { methods: [POST], backoff_base_ms: 1, backoff_max_ms: 1 }";

#[test]
fn unavailable_is_tried_again_where_posts_may_be() {
    let (bad, good) = (Server::new("bad"), Server::new("good"));
    bad.turn(ends("14", &[]));
    let gateway = Gateway::single(&spec(&[&bad, &good], &[TWICE]));
    let mut client = H2Client::clear(gateway.address());
    for _ in 0..4 {
        let answer = client.ask(&call(&[]), QUESTION);
        assert_eq!((code(&answer).as_str(), &answer.body[5..]), ("0", &b"good"[..]));
    }
    assert!(bad.seen() >= 2, "it was asked, too");
    assert_eq!(good.seen(), 4);
    assert!(good.origin.seen().iter().all(|seen| seen.body == QUESTION));
    let (_, metrics) = gateway.admin("/metrics");
    let counted = format!(
        "sluice_shard_upstream_retries_total{{shard=\"0\",reason=\"grpc_status\"}} {}",
        bad.seen()
    );
    let counts = || gateway.admin("/metrics").1.contains(&counted);
    assert!(eventually(PATIENCE, counts), "{counted}\n{metrics}");

    // A request that streams: its status may come when only some of it is there.
    bad.turn(Reply::default().last(&[OK, &[("grpc-status", "14")]].concat()));
    for _ in 0..4 {
        let stream = client.begin(&call(&[]), false);
        client.body(stream, &QUESTION[..3], false).expect("half a message");
        std::thread::sleep(std::time::Duration::from_millis(30));
        client.body(stream, &QUESTION[3..], true).expect("the other half");
        let answer = client.answer(stream).expect("an answer");
        assert_eq!((code(&answer).as_str(), &answer.body[5..]), ("0", &b"good"[..]));
        assert_eq!(good.origin.last().body, QUESTION);
    }
}

#[test]
fn what_may_not_be_repeated_or_is_not_listed_is_passed_on() {
    let wait = "outlier: none, retry: { methods: any, retry_after_max_ms: 100 }";
    let all = "outlier: none, retry: { methods: any, on: [resource_exhausted, internal] }";
    for (settings, mood, status) in [
        // Every call is a POST.
        ("outlier: none", ends("14", &[]), "14"),
        (TWICE, ends("13", &[]), "13"),
        (TWICE, ends("5", &[("grpc-message", "none")]), "5"),
        // Once something was passed on it is too late.
        (TWICE, answer("half", "14"), "14"),
        (TWICE, Reply::default().request().head(OK).last(&[("grpc-status", "14")]), "14"),
        (all, ends("14", &[]), "14"),
        // The server asks not to be asked again.
        (wait, ends("14", &[("grpc-retry-pushback-ms", "-1")]), "14"),
        (wait, ends("14", &[("grpc-retry-pushback-ms", "101")]), "14"),
    ] {
        let (bad, good) = (Server::new("bad"), Server::new("good"));
        bad.turn(mood.clone());
        let gateway = Gateway::single(&spec(&[&bad, &good], &[settings]));
        let codes = codes(&gateway, 6, &[]);
        assert_eq!((count(&codes, status), count(&codes, "0")), (3, 3), "{mood:?}: {codes:?}");
        assert_eq!((bad.seen(), good.seen()), (3, 3), "{mood:?}");
    }
    for (settings, mood) in [
        (all, ends("8", &[])),
        (all, ends("13", &[])),
        (wait, ends("14", &[("grpc-retry-pushback-ms", "50")])),
    ] {
        let (bad, good) = (Server::new("bad"), Server::new("good"));
        bad.turn(mood.clone());
        let gateway = Gateway::single(&spec(&[&bad, &good], &[settings]));
        assert_eq!(count(&codes(&gateway, 6, &[]), "0"), 6, "{mood:?}");
        assert!(bad.seen() > 0, "{mood:?}");
    }
}

#[test]
fn a_call_of_grpc_web_is_tried_again_as_well() {
    let (bad, good) = (Server::new("bad"), Server::new("good"));
    bad.turn(ends("14", &[]));
    let spec = spec(&[&bad, &good], &[TWICE]).route("grpc_web: true");
    let gateway = Gateway::single(&spec);
    let mut fields = tests::http2::client::request("POST", "/t.T/Call");
    fields.push(("content-type", "application/grpc-web"));
    let mut client = H2Client::clear(gateway.address());
    for _ in 0..4 {
        let answer = client.ask(&fields, QUESTION);
        assert!(answer.body.windows(14).any(|part| part == b"grpc-status: 0"), "{answer:?}");
    }
    assert!(bad.seen() > 0);
}

/// With the defaults but for the retries, and for how a target comes back.
const JUDGED: &str = "retry: none, outlier: { slow_start_ms: 0 }";

#[test]
fn targets_answer_for_statuses() {
    let trailing = |code| answer("half", code);
    for (mood, code, failures) in [
        (ends("14", &[]), "14", 3),
        (trailing("14"), "14", 3),
        // No deadline was set, so this one was the server's own.
        (ends("4", &[]), "4", 3),
        (ends("13", &[]), "13", 5),
        (trailing("2"), "2", 5),
        (trailing("15"), "15", 5),
    ] {
        let (bad, good) = (Server::new("bad"), Server::new("good"));
        bad.turn(mood.clone());
        let gateway = Gateway::single(&spec(&[&bad, &good], &[JUDGED]));
        let codes = codes(&gateway, 30, &[]);
        assert_eq!(count(&codes, code), failures, "{mood:?}: {codes:?}");
        assert_eq!(bad.seen(), failures, "{mood:?}");
        let ejected = || standing(&gateway)["targets"][0]["state"] == "ejected";
        assert!(eventually(PATIENCE, ejected), "{mood:?}: {}", standing(&gateway));
    }
}

#[test]
fn statuses_that_clients_bring_about_are_theirs() {
    let deadline: &[(&str, &str)] = &[("grpc-timeout", "20S")];
    for (mood, code, more) in [
        (ends("5", &[]), "5", &[][..]),
        (ends("12", &[]), "12", &[]),
        (answer("half", "8"), "8", &[]),
        (ends("1", &[]), "1", &[]),
        (ends("4", &[]), "4", deadline),
        (answer("half", "4"), "4", deadline),
    ] {
        let (bad, good) = (Server::new("bad"), Server::new("good"));
        bad.turn(mood.clone());
        let gateway = Gateway::single(&spec(&[&bad, &good], &[JUDGED]));
        let codes = codes(&gateway, 30, more);
        assert_eq!(count(&codes, code), 15, "{mood:?}: {codes:?}");
        assert_ne!(standing(&gateway)["targets"][0]["state"], "ejected", "{mood:?}");
    }
    // To others a grpc-status is a field like any.
    let (odd, good) = (Server::new("odd"), Server::new("good"));
    odd.turn(ends("14", &[]));
    let gateway = Gateway::single(&spec(&[&odd, &good], &[JUDGED]));
    let mut client = H2Client::clear(gateway.address());
    for _ in 0..20 {
        assert_eq!(client.ask(&tests::http2::client::request("GET", "/x"), b"").status, 200);
    }
    assert_eq!(odd.seen(), 10);
}

#[test]
fn breakers_open_for_statuses() {
    let breaker = "outlier: none, retry: none, \
                   breaker: { consecutive: 3, error_percent: 0, open_ms: 60000 }";
    for mood in [ends("14", &[]), answer("half", "13")] {
        let only = Server::new("only");
        only.turn(mood.clone());
        let gateway = Gateway::single(&spec(&[&only], &[breaker]));
        codes(&gateway, 10, &[]);
        assert_eq!(only.seen(), 3, "{mood:?}");
        let open = || standing(&gateway)["standing"]["breaker"] == "open";
        assert!(eventually(PATIENCE, open), "{mood:?}");
    }
}

/// A mirror's answers go nowhere, and still tell how its target does.
#[test]
fn a_mirrored_call_tells_of_the_mirror() {
    let (main, shadow) = (Server::new("main"), Server::new("shadow"));
    shadow.turn(answer("half", "13"));
    let settings = "protocol: http2, retry: none, \
                    breaker: { consecutive: 3, error_percent: 0, open_ms: 60000 }";
    let spec = spec(&[&main], &[])
        .also_upstream("shadow", shadow.origin.address(), settings)
        .route("mirror: { upstream: shadow }");
    let gateway = Gateway::single(&spec);
    let open = || {
        // Only what is here whole is mirrored.
        let mut client = H2Client::clear(gateway.address());
        let stream = client.begin(&call(&[]), true);
        assert_eq!(client.answer(stream).map(|answer| code(&answer)), Ok("0".into()));
        let all = gateway.admin_json("/v1/upstreams");
        let list = all.as_array().expect("a list of upstreams");
        let shadow = list.iter().find(|one| one["name"] == "shadow").expect("the mirror");
        shadow["standing"]["breaker"] == "open"
    };
    assert!(eventually(PATIENCE, open), "{}", gateway.admin_json("/v1/upstreams"));
}
