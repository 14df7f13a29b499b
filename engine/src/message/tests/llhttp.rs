//! The vectors of nodejs/llhttp: what it refuses we refuse, and where we refuse more, we say why.

use std::path::{Path, PathBuf};

use super::{Outcome, read_requests, read_responses};

/// Vectors that llhttp accepts and that are refused here: file, line of its input, and the reason.
const STRICTER: &[(&str, u32, &str)] = &[
    ("request/content-length.md", 7, "B-10: leading zeros in Content-Length"),
    ("request/content-length.md", 44, "B-10: leading zeros in Content-Length"),
    ("request/method.md", 138, "B-34: `*` is for OPTIONS alone"),
    ("request/method.md", 375, "ICE is not HTTP"),
    ("request/method.md", 405, "RTSP is not HTTP"),
    ("request/method.md", 433, "RTSP is not HTTP"),
    ("request/method.md", 461, "B-48: the HTTP/2 preface on a clear HTTP/1 port"),
    ("request/sample.md", 70, "B-03: `=` in Host"),
    ("request/sample.md", 108, "B-03: `=` in Host"),
    ("request/sample.md", 317, "B-33: HTTP/0.9"),
    ("request/transfer-encoding.md", 754, "B-25: fragment in the target; B-11: deflate"),
    ("request/transfer-encoding.md", 796, "B-25: fragment in the target; B-14: two lines"),
    ("request/uri.md", 7, "B-25: quotes in the target"),
    ("request/uri.md", 105, "B-25: `|` in the target"),
    ("request/uri.md", 168, "B-25: fragment in the target"),
    ("request/uri.md", 225, "B-03: userinfo in the authority"),
    ("response/connection.md", 495, "an upstream's empty line between messages is a stray byte"),
    ("response/connection.md", 589, "an upstream's empty line between messages is a stray byte"),
    ("response/pipelining.md", 7, "an upstream's empty line between messages is a stray byte"),
    ("response/sample.md", 43, "RTSP is not HTTP"),
    ("response/sample.md", 63, "ICE is not HTTP"),
    ("response/sample.md", 648, "HTTP/0.9"),
    ("response/sample.md", 698, "an upstream's empty line between messages is a stray byte"),
    ("response/transfer-encoding.md", 46, "B-13: chunked is not the last coding"),
    ("response/transfer-encoding.md", 77, "B-14: two Transfer-Encoding lines"),
    ("response/transfer-encoding.md", 115, "B-11: a coding that is not known here"),
];

/// Vectors that llhttp refuses for its closed list of methods. Here every token is a method: a
/// route knows it, or it is answered 405 (B-30).
const METHODS: &[(&str, u32)] = &[("request/invalid.md", 69), ("request/invalid.md", 359)];

struct Vector {
    file: String,
    line: u32,
    kind: String,
    input: Vec<u8>,
    /// llhttp stopped with an error that is not a pause.
    refused: bool,
}

/// Where the vectors are: beside the workspace, or where `SLUICE_VECTORS` says.
fn folder() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/llhttp/test");
    let given = std::env::var_os("SLUICE_VECTORS").map(|dir| Path::new(&dir).join("llhttp/test"));
    [Some(beside.clone()), given].into_iter().flatten().find(|dir| dir.is_dir()).unwrap_or_else(|| {
        panic!(
            "llhttp's vectors are not at {}: set SLUICE_VECTORS to the folder that holds llhttp/",
            beside.display()
        )
    })
}

fn vectors(file: &str) -> Vec<Vector> {
    let path = folder().join(file);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let (mut found, mut kind, mut input, mut line) = (Vec::new(), String::new(), None, 0);
    let mut block: Option<(&str, String)> = None;
    for (number, text) in (1..).zip(text.lines()) {
        if let Some((name, body)) = &mut block {
            if text != "```" {
                body.push_str(text);
                body.push('\n');
            } else if *name == "http" {
                input = Some(bytes_of(body));
                block = None;
            } else {
                if let Some(input) = input.take() {
                    let (file, kind) = (file.to_owned(), kind.clone());
                    found.push(Vector { file, line, kind, input, refused: is_error(body) });
                }
                block = None;
            }
        } else if let Some(name) = text.strip_prefix("```") {
            line = if name == "http" { number } else { line };
            block = Some((if name == "http" { "http" } else { "log" }, String::new()));
        } else if let Some(meta) = text.strip_prefix("<!-- meta=") {
            kind = meta_type(meta);
        }
    }
    found
}

/// The value of `"type"`; a vector that also pauses or skips the body steers llhttp's own API.
fn meta_type(meta: &str) -> String {
    let after = meta.split("\"type\"").nth(1).unwrap_or_default();
    let value = after.split('"').nth(1).unwrap_or_default();
    if meta.contains("skipBody") { format!("{value}-steered") } else { value.to_owned() }
}

/// Codes 21 to 23 are pauses: asked for, at an upgrade, and at the HTTP/2 preface.
fn is_error(log: &str) -> bool {
    log.split("error code=").skip(1).any(|rest| {
        let code = rest.split(' ').next().unwrap_or_default();
        !matches!(code, "21" | "22" | "23")
    })
}

/// The input as llhttp's runner makes it: no newline at the end, CRLF for each other one, and
/// escapes replaced.
fn bytes_of(block: &str) -> Vec<u8> {
    let text = block.strip_suffix('\n').unwrap_or(block);
    let text = text.replace("\\\n", "").replace('\n', "\r\n");
    let text = text.replace("\\r", "\r").replace("\\n", "\n");
    let text = text.replace("\\t", "\t").replace("\\f", "\x0c");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("\\x") {
        out.push_str(&rest[..at]);
        let digits: String =
            rest[at + 2..].chars().take_while(char::is_ascii_hexdigit).take(2).collect();
        out.push(u8::from_str_radix(&digits, 16).map_or('\\', char::from));
        rest = &rest[at + 2 + digits.len()..];
    }
    out.push_str(rest);
    out.into_bytes()
}

/// Most of llhttp's requests have no Host, which it does not ask for. One is given to them, so
/// that they test what they mean to.
fn with_host(input: &[u8]) -> Vec<u8> {
    let lower = input.to_ascii_lowercase();
    if memchr::memmem::find(&lower, b"\r\nhost:").is_some() {
        return input.to_vec();
    }
    let mut out = Vec::new();
    let mut rest = input;
    while let Some(at) = memchr::memmem::find(rest, b" HTTP/1.1\r\n") {
        let (line, after) = rest.split_at(at + 11);
        out.extend_from_slice(line);
        // A line that begins with a space tests just that, right behind the request line.
        if !matches!(after.first(), Some(b' ' | b'\t')) {
            out.extend_from_slice(b"Host: vector.test\r\n");
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out
}

fn check(files: &[&str], kinds: &[&str], read: impl Fn(&[u8]) -> Outcome) {
    let mut wrong = Vec::new();
    let (mut count, mut stricter) = (0, 0);
    for vector in files.iter().flat_map(|file| vectors(file)) {
        if !kinds.contains(&vector.kind.as_str()) {
            continue;
        }
        count += 1;
        let mut outcome = read(&vector.input);
        if vector.refused && matches!(outcome, Outcome::Read(_)) {
            // llhttp refuses while a head goes on, we may wait for its end: the same verdict.
            outcome = read(&[&vector.input[..], b"\r\n\r\n"].concat());
        }
        let refused = !matches!(outcome, Outcome::Read(_));
        let listed =
            STRICTER.iter().any(|&(file, line, _)| (file, line) == (&*vector.file, vector.line));
        stricter += usize::from(listed);
        let fault = match (vector.refused, refused, listed) {
            (true, false, _) if METHODS.contains(&(&*vector.file, vector.line)) => continue,
            (true, false, _) => "llhttp refuses it and we do not",
            (false, true, false) => "we refuse it, llhttp does not, and no reason is listed",
            (_, _, true) if vector.refused || !refused => "listed as stricter and is not",
            _ => continue,
        };
        wrong.push(format!(
            "{}:{}: {fault}\n  {outcome:?}\n  {}",
            vector.file,
            vector.line,
            vector.input.escape_ascii()
        ));
    }
    assert!(count >= 40, "only {count} vectors found: has their format changed?");
    let listed = STRICTER.iter().filter(|(file, ..)| files.contains(file)).count();
    assert_eq!(stricter, listed, "STRICTER names vectors that are not there");
    assert!(wrong.is_empty(), "{} of {count} vectors:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn requests() {
    let files = [
        "request/connection.md",
        "request/content-length.md",
        "request/finish.md",
        "request/invalid.md",
        "request/lenient-header-value-relaxed.md",
        "request/lenient-headers.md",
        "request/lenient-version.md",
        "request/method.md",
        "request/pausing.md",
        "request/pipelining.md",
        "request/sample.md",
        "request/transfer-encoding.md",
        "request/uri.md",
    ];
    check(&files, &["request", "request-finish"], |input| read_requests(&with_host(input)));
}

#[test]
fn responses() {
    let files = [
        "response/connection.md",
        "response/content-length.md",
        "response/finish.md",
        "response/invalid.md",
        "response/lenient-version.md",
        "response/pausing.md",
        "response/pipelining.md",
        "response/sample.md",
        "response/transfer-encoding.md",
    ];
    check(&files, &["response", "response-finish"], read_responses);
}
