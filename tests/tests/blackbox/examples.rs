//! What a new user runs first: the examples and the demo.

use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tests::process::{cli, descendants, signal_group, sluice_binary, wait};
use tests::scratch::Scratch;
use tests::{Client, PATIENCE, eventually};

fn examples() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_example_passes_the_check() {
    let files = examples();
    assert!(files.len() >= 3, "several examples are promised, not {}", files.len());
    for file in files {
        let scratch = Scratch::new();
        let copy = with_certificates(&file, &scratch);
        let outcome = cli(&["check", &copy.display().to_string()]);
        assert_eq!(outcome.code, Some(0), "{}: {outcome:?}", file.display());
        // A warning in an example would teach it.
        assert!(!outcome.text().contains("warning"), "{}: {outcome:?}", file.display());
    }
}

/// A copy of an example in `scratch`, with the files under `certs/` that it names and those of
/// `openapi/` and `protos/`.
///
/// `certs/NAME.pem` and `.key` are for `NAME.example.com` and all below it; `certs/NAME-ca.pem` is an
/// authority and `certs/NAME-ca.crl` what it has revoked.
fn with_certificates(example: &Path, scratch: &Scratch) -> PathBuf {
    let text = std::fs::read_to_string(example).expect("an example is readable");
    let copy = scratch.file("example.yaml", &text);
    for name in ["openapi", "protos"] {
        let documents = scratch.path().join(name);
        std::fs::create_dir_all(&documents).expect("a directory for documents");
        let files = std::fs::read_dir(example.with_file_name(name)).into_iter().flatten();
        for file in files.flatten() {
            std::fs::copy(file.path(), documents.join(file.file_name())).expect("a document");
        }
    }
    let certs = scratch.path().join("certs");
    std::fs::create_dir_all(&certs).expect("a directory for certificates");
    let named = text.split("certs/").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-')?;
        rest.get(..end)
    });
    for name in named.collect::<std::collections::BTreeSet<_>>() {
        let write = |extension: &str, text: String| {
            let path = certs.join(format!("{name}.{extension}"));
            std::fs::write(&path, text).expect("a certificate file");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("mode");
        };
        let key = rcgen::KeyPair::generate().expect("a key");
        let names = [format!("{name}.example.com"), format!("*.{name}.example.com")];
        let mut params = rcgen::CertificateParams::new(names).expect("names");
        if !name.ends_with("-ca") {
            let certificate = params.self_signed(&key).expect("a certificate");
            write("pem", certificate.pem());
            write("key", key.serialize_pem());
            continue;
        }
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages =
            vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let authority = rcgen::CertifiedIssuer::self_signed(params, key).expect("an authority");
        write("pem", authority.pem());
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(2100, 1, 1),
            crl_number: rcgen::SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&authority).expect("a revocation list");
        write("crl", list.pem().expect("PEM"));
    }
    copy
}

/// `sluice up --demo`, stopped hard if a test fails.
struct Demo {
    child: Child,
    log: PathBuf,
    _scratch: Scratch,
}

impl Demo {
    fn start() -> Demo {
        let taken = TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).is_ok();
        assert!(!taken, "port 8080 is in use: stop what listens there, the demo needs it");
        let scratch = Scratch::new();
        let log = scratch.path().join("log");
        let out = File::create(&log).expect("log file");
        let child = Command::new(sluice_binary())
            .args(["up", "--demo", "--state"])
            .arg(scratch.path().join("state"))
            .stdin(Stdio::null())
            .stderr(out.try_clone().expect("log file"))
            .stdout(out)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("sluice up --demo: {e}"));
        Demo { child, log, _scratch: scratch }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The `curl` lines it has printed.
    fn curl_lines(&self) -> Vec<String> {
        self.text()
            .lines()
            .map(str::trim_start)
            .filter(|line| line.starts_with("curl "))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        signal_group(self.child.id(), Signal::KILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the demo's output ---\n{}", self.text());
        }
    }
}

/// Splits a command line as a shell does, as far as quotes go.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => (quote, any) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (None, '#') if !any => break,
            (_, c) => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

/// Does what the `curl` line says, and returns the status. Only the options that a first example
/// may use are known; another one fails, so that nobody prints a line that is not tested.
fn curl(line: &str) -> u16 {
    let (mut method, mut fields, mut body, mut url) = (None, String::new(), None, None);
    let mut words = shell_words(line).into_iter().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} without a value: {line}"));
        match word.as_str() {
            "-X" | "--request" => method = Some(value()),
            "-H" | "--header" => fields.push_str(&format!("{}\r\n", value())),
            "-d" | "--data" => body = Some(value()),
            "-i" | "-s" | "-v" | "-N" | "-sS" | "-si" => {}
            word if word.starts_with('-') => panic!("{word} is not known here: {line}"),
            word => url = Some(word.trim_start_matches("http://").to_owned()),
        }
    }
    let url = url.unwrap_or_else(|| panic!("no URL: {line}"));
    let (authority, path) = url.split_once('/').unwrap_or((&url, ""));
    let address = authority.replace("localhost", "127.0.0.1");
    let address = if address.contains(':') { address } else { format!("{address}:80") };
    let method = method.unwrap_or(if body.is_some() { "POST" } else { "GET" }.into());
    let body = body.unwrap_or_default();
    let mut client = Client::connect(address.parse().unwrap_or_else(|e| panic!("{address}: {e}")));
    let response = client.ask(format!(
        "{method} /{path} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {}\r\n{fields}\r\n{body}",
        body.len()
    ));
    response.status
}

#[test]
fn the_demo_does_what_it_prints_and_stops_on_ctrl_c() {
    let mut demo = Demo::start();
    assert!(
        eventually(PATIENCE * 2, || demo.curl_lines().len() >= 3),
        "three curl lines are promised:\n{}",
        demo.text()
    );
    assert!(demo.text().contains("8080"), "the gateway's address is printed:\n{}", demo.text());
    for line in demo.curl_lines() {
        assert_eq!(curl(&line), 200, "{line}");
    }
    // Ctrl-C in a terminal goes to the whole group.
    let family = descendants(demo.child.id());
    signal_group(demo.child.id(), Signal::INT);
    let status = wait(&mut demo.child, PATIENCE * 3);
    let status = status.unwrap_or_else(|| panic!("still running after Ctrl-C:\n{}", demo.text()));
    assert_eq!(status.code(), Some(0), "{}", demo.text());
    assert!(!demo.text().contains("panicked"), "{}", demo.text());
    let left =
        || family.iter().any(|running| Path::new(&format!("/proc/{}", running.pid)).exists());
    assert!(eventually(PATIENCE, || !left()), "processes are left over after Ctrl-C");
}

#[test]
fn shell_words_are_split() {
    assert_eq!(
        shell_words("curl -H 'X-A: 1'  \"http://a/b c\" # why"),
        ["curl", "-H", "X-A: 1", "http://a/b c"]
    );
}
