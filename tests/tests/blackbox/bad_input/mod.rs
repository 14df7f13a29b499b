//! Every HTTP/1 row of the bad-input table: what is sent, what may come back, what the origin must
//! never see. The row's id is in each message.

mod body;
mod head;
mod policy;

use tests::spec::Spec;
use tests::{Gateway, Origin, PATIENCE, Response, WireError, eventually, get};

/// What the connection must do after the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    /// Close; nothing that follows is ever parsed.
    Close,
    /// Serve a good request.
    Keep,
}

/// What the origin may have got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// Not a byte.
    Nothing,
    /// Perhaps a beginning, never a whole request.
    Unfinished,
    /// The request.
    Request,
}

struct Case {
    row: &'static str,
    what: String,
    bytes: Vec<u8>,
    /// Statuses that are right; 0: closed without an answer.
    answers: &'static [u16],
    then: Then,
    reach: Reach,
    /// The input ends inside a message, so what follows would be part of it.
    open_ended: bool,
}

impl Case {
    fn new(row: &'static str, bytes: impl Into<Vec<u8>>, answers: &'static [u16]) -> Case {
        let bytes = bytes.into();
        let what = tests::wire::lossy(&bytes[..bytes.len().min(160)]);
        Case {
            row,
            what,
            bytes,
            answers,
            then: Then::Close,
            reach: Reach::Nothing,
            open_ended: false,
        }
    }

    fn keep(mut self) -> Case {
        self.then = Then::Keep;
        self
    }

    fn unfinished(mut self) -> Case {
        self.reach = Reach::Unfinished;
        self
    }

    fn forwarded(mut self) -> Case {
        self.reach = Reach::Request;
        self.keep()
    }

    fn open_ended(mut self) -> Case {
        self.open_ended = true;
        self
    }

    fn name(&self) -> String {
        format!("{} {:?}", self.row, self.what)
    }
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// `GET /bad` with these field lines (each without its CRLF) besides Host.
fn with(fields: &[u8]) -> Vec<u8> {
    [b"GET /bad HTTP/1.1\r\nHost: a.test\r\n", fields, b"\r\n\r\n"].concat()
}

/// `POST /bad` with these field lines and a body.
fn post(fields: &[u8], body: &[u8]) -> Vec<u8> {
    [b"POST /bad HTTP/1.1\r\nHost: a.test\r\n", fields, b"\r\n\r\n", body].concat()
}

/// A chunked POST with this body.
fn chunked(body: &[u8]) -> Vec<u8> {
    post(b"Transfer-Encoding: chunked", body)
}

/// A request with this first line.
fn line(line: &[u8]) -> Vec<u8> {
    [line, b"\r\nHost: a.test\r\n\r\n"].concat()
}

/// Runs each case alone and, where it must end the connection, once more with a good request
/// behind it that must never be served.
fn run(cases: &[Case]) {
    let origin = Origin::echo();
    let gateway = Gateway::front(&origin);
    run_on(&gateway, &origin, cases);
}

fn run_on(gateway: &Gateway, origin: &Origin, cases: &[Case]) {
    let mut failures = Vec::new();
    for case in cases {
        if let Err(e) = attempt(gateway, origin, case, b"") {
            failures.push(format!("{}: {e}", case.name()));
        } else if case.then == Then::Close
            && !case.open_ended
            && let Err(e) = attempt(gateway, origin, case, SMUGGLED.as_bytes())
        {
            failures.push(format!("{} with a request behind it: {e}", case.name()));
        }
    }
    assert!(!origin.received("/smuggled"), "a request behind a bad one was forwarded");
    assert!(
        failures.is_empty(),
        "{} of {} cases:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

fn attempt(gateway: &Gateway, origin: &Origin, case: &Case, behind: &[u8]) -> Result<(), String> {
    let before = origin.completed();
    let mut client = gateway.connect();
    client.send([&case.bytes, behind].concat());
    let method = if case.bytes.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
    let response = match client.response_to(method) {
        Ok(response) => response,
        Err(WireError::Closed | WireError::Reset(_)) if case.answers.contains(&0) => return Ok(()),
        Err(e) => return Err(format!("no answer: {e:?}, expected {:?}", case.answers)),
    };
    if !case.answers.contains(&response.status) {
        return Err(format!("{} instead of {:?}", response.head.start, case.answers));
    }
    let forwarded = origin.completed() - before;
    match case.reach {
        Reach::Request if response.status == 200 && forwarded != 1 => {
            return Err(format!("{forwarded} requests forwarded instead of 1"));
        }
        Reach::Nothing | Reach::Unfinished if forwarded != 0 => {
            return Err(format!("{forwarded} requests reached the origin"));
        }
        _ => {}
    }
    if response.status >= 400 {
        own_answer(&response, method)?;
    }
    // A row that says "forwarded or 400" leaves the close to the 400.
    let then = if case.reach == Reach::Request && response.status == 400 {
        Then::Close
    } else {
        case.then
    };
    match then {
        Then::Close => {
            if !response.says_close() {
                return Err(format!("no Connection: close in {:?}", response.head.fields));
            }
            client.wire.closes_within(PATIENCE)
        }
        Then::Keep => {
            client.send(get("/after"));
            match client.response() {
                Ok(next) if next.status == 200 && next.text() == "GET /after\n" => Ok(()),
                Ok(next) => Err(format!("then {} {:?}", next.head.start, next.text())),
                Err(e) => Err(format!("then no second answer: {e:?}")),
            }
        }
    }
}

/// The gateway's own answer is problem+json and reflects nothing.
fn own_answer(response: &Response, method: &str) -> Result<(), String> {
    if method == "HEAD" {
        return Ok(());
    }
    response.problem()?;
    let text = response.text().to_ascii_lowercase();
    match ["/bad", "a.test", "smuggled"].iter().find(|word| text.contains(**word)) {
        Some(word) => Err(format!("the answer reflects {word:?}: {text}")),
        None => Ok(()),
    }
}
