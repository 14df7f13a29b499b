//! A real `sluice up` in a process group of its own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::client::Client;
use crate::message::Response;
use crate::origin::Origin;
use crate::process::{self, Running, sluice_binary};
use crate::scratch::Scratch;
use crate::spec::{Names, Spec};
use crate::{PATIENCE, eventually};

/// How long the start may take until `/readyz` says 200.
const START: Duration = Duration::from_secs(20);
/// How long a drain may take at a test's end before it is cut short.
const STOP: Duration = Duration::from_secs(10);

/// A running gateway. Stopped on drop, which fails the test when the log holds a panic.
pub struct Gateway {
    child: Child,
    names: Names,
    port: u16,
    admin: u16,
    log: PathBuf,
    scratch: Scratch,
    stopped: bool,
}

impl Gateway {
    /// Starts `sluice up` with two shards and waits until it is ready.
    pub fn start(template: &str) -> Gateway {
        Gateway::start_with(template, 2)
    }

    /// A gateway that sends everything to `origin`.
    pub fn front(origin: &Origin) -> Gateway {
        Gateway::of(&Spec::to(origin.address()))
    }

    pub fn of(spec: &Spec) -> Gateway {
        Gateway::start(&spec.text())
    }

    /// One shard: what a test counts per shard is then exact.
    pub fn single(spec: &Spec) -> Gateway {
        Gateway::start_with(&spec.text(), 1)
    }

    pub fn start_with(template: &str, shards: usize) -> Gateway {
        Gateway::start_in(Scratch::new(), template, shards)
    }

    /// As [`Gateway::start_with`], in a directory (`{DIR}`) that holds files already.
    pub fn start_in(scratch: Scratch, template: &str, shards: usize) -> Gateway {
        let names = Names::new(scratch.path());
        Gateway::launch(scratch, names, template, &["--shards", &shards.to_string()])
    }

    /// A node of the store at `url`, on a machine where the spec's ports are `port` and `admin`.
    pub fn node(template: &str, url: &str, name: &str, (port, admin): (u16, u16)) -> Gateway {
        let scratch = Scratch::new();
        let mut names = Names::new(scratch.path());
        names.set("PORT", port);
        names.set("ADMIN", admin);
        let arguments = ["--shards", "1", "--store", url, "--node", name];
        Gateway::launch(scratch, names, template, &arguments)
    }

    fn launch(scratch: Scratch, mut names: Names, template: &str, arguments: &[&str]) -> Gateway {
        let file = scratch.file("spec.yaml", &names.fill(template));
        let log = scratch.path().join("log");
        let out = File::create(&log).expect("log file");
        let err = out.try_clone().expect("log file");
        let mut command = Command::new(sluice_binary());
        command
            .arg("up")
            .arg("-f")
            .arg(file)
            .arg("--state")
            .arg(scratch.path().join("state"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let (port, admin) = (names.port("PORT"), names.port("ADMIN"));
        let mut gateway = Gateway { child, names, port, admin, log, scratch, stopped: false };
        gateway.await_ready();
        gateway
    }

    fn await_ready(&mut self) {
        let deadline = Instant::now() + START;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.stopped = true;
                panic!("sluice up ended at once ({status}):\n{}", self.log_text());
            }
            if self.try_admin("GET", "/readyz", "").is_some_and(|answer| answer.status == 200) {
                return;
            }
            if Instant::now() >= deadline {
                panic!("sluice up is not ready after {START:?}:\n{}", self.log_text());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where the port that the spec calls `{name}` is.
    pub fn address_of(&mut self, name: &str) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.names.port(name)).into()
    }

    /// The admin listener, as the CLI's `--admin` wants it.
    pub fn admin_address(&self) -> String {
        format!("127.0.0.1:{}", self.admin)
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// One request on a connection of its own.
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Response {
        self.connect().ask(request)
    }

    fn try_admin(&self, method: &str, path: &str, body: &str) -> Option<Response> {
        let mut client = Client::try_connect((Ipv4Addr::LOCALHOST, self.admin).into()).ok()?;
        client.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Type: application/yaml\r\nContent-Length: {}\r\n\r\n{body}",
            self.admin_address(),
            body.len()
        ));
        client.patience(START).response().ok()
    }

    /// Whether control answers, and says that all is well.
    pub fn is_ready(&self) -> bool {
        self.try_admin("GET", "/readyz", "").is_some_and(|answer| answer.status == 200)
    }

    /// GETs a path of the admin listener: status and body.
    #[track_caller]
    pub fn admin(&self, path: &str) -> (u16, String) {
        let answer = self.try_admin("GET", path, "");
        let answer = answer.unwrap_or_else(|| panic!("admin {path}:\n{}", self.log_text()));
        (answer.status, answer.text())
    }

    /// POSTs to the admin listener.
    #[track_caller]
    pub fn admin_post(&self, path: &str, body: &str) -> (u16, String) {
        let answer = self.try_admin("POST", path, body);
        let answer = answer.unwrap_or_else(|| panic!("admin {path}:\n{}", self.log_text()));
        (answer.status, answer.text())
    }

    /// GETs JSON from the admin listener.
    #[track_caller]
    pub fn admin_json(&self, path: &str) -> Value {
        let (status, text) = self.admin(path);
        assert_eq!(status, 200, "admin {path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("admin {path}: {e} in {text}"))
    }

    /// Applies a spec and returns the status and body of control's answer.
    #[track_caller]
    pub fn try_apply(&mut self, template: &str) -> (u16, String) {
        let text = self.names.fill(template);
        self.admin_post("/v1/apply", &text)
    }

    /// Applies a spec that must be accepted.
    #[track_caller]
    pub fn apply(&mut self, template: &str) {
        let (status, body) = self.try_apply(template);
        assert!((200..300).contains(&status), "apply: {status} {body}");
    }

    /// Writes a spec into the gateway's own directory, names filled in; for the CLI.
    pub fn spec_file(&mut self, name: &str, template: &str) -> PathBuf {
        let text = self.names.fill(template);
        self.scratch.file(name, &text)
    }

    /// A number from `/metrics`: the sum over all series of `name`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.admin("/metrics");
        let series = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let values: Vec<f64> =
            series.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    pub fn access_log(&self) -> String {
        std::fs::read_to_string(self.dir().join("access.jsonl")).unwrap_or_default()
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The supervisor.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process of a role, `engine` or `control`; waits until there is one.
    #[track_caller]
    pub fn pid_of(&self, role: &str) -> u32 {
        let mut found = None;
        eventually(PATIENCE, || {
            found = self.find(role);
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("no {role} process:\n{}", self.log_text()))
    }

    /// The process of a role, if it runs now.
    pub fn find(&self, role: &str) -> Option<u32> {
        let word = format!("run-{role}");
        let family = process::descendants(self.child.id());
        family.iter().find(|running| running.command.contains(&word)).map(|running| running.pid)
    }

    /// `kill -9`s a role and waits until that process is gone.
    #[track_caller]
    pub fn kill(&self, role: &str) -> u32 {
        let pid = self.pid_of(role);
        process::signal(pid, Signal::KILL);
        let gone = || !process::descendants(self.pid()).iter().any(|running| running.pid == pid);
        assert!(eventually(PATIENCE, gone), "{role} {pid} survives SIGKILL");
        pid
    }

    /// Sends a signal to the supervisor alone.
    pub fn signal(&self, signal: Signal) {
        process::signal(self.pid(), signal);
    }

    /// Waits for the supervisor's end.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let status = process::wait(&mut self.child, patience);
        self.stopped |= status.is_some();
        status
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let family: Vec<Running> = process::descendants(self.pid());
        if !self.stopped {
            // A stopped child could not obey.
            for running in &family {
                process::signal(running.pid, Signal::CONT);
            }
            process::signal(self.pid(), Signal::TERM);
            if process::wait(&mut self.child, STOP).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        process::signal_group(self.child.id(), Signal::KILL);
        let log = self.log_text();
        if std::thread::panicking() {
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            eprintln!("--- the gateway's log, last lines ---\n{}", tail.join("\n"));
        } else {
            assert!(!log.contains("panicked"), "the gateway panicked:\n{log}");
        }
    }
}
