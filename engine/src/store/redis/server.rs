//! A real Redis for tests: on a port of its own, without a file, gone with its end.

#![allow(clippy::disallowed_methods, reason = "tests live on the system's clocks and sockets")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct RedisServer {
    pub port: u16,
    directory: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl RedisServer {
    pub fn start() -> RedisServer {
        RedisServer::start_with(&[])
    }

    /// With more arguments, such as `--requirepass x`.
    pub fn start_with(arguments: &[&str]) -> RedisServer {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let place = format!(
            "sluice-redis-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = std::env::temp_dir().join(place);
        std::fs::create_dir_all(&directory).unwrap();
        // Another process may take the port in between, so a start may fail.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            // A cluster's bus has the port 10,000 above.
            if port > 55_000 {
                continue;
            }
            let mut server = RedisServer {
                port,
                directory: directory.clone(),
                arguments: arguments.iter().map(|text| (*text).into()).collect(),
                process: None,
            };
            if server.run() {
                return server;
            }
            server.directory = PathBuf::new();
        }
        panic!("redis-server does not start; is it installed?");
    }

    fn run(&mut self) -> bool {
        let mut process = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "no", "--dir", &self.directory.display().to_string()])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                self.process = Some(process);
                return true;
            }
            sleep(Duration::from_millis(10));
        }
        let _ = process.kill();
        let _ = process.wait();
        false
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it; what it held is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again, at the same place.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.run(), "its port is taken");
    }

    /// It stands still, but holds its connections.
    pub fn freeze(&self, frozen: bool) {
        let pid = self.process.as_ref().unwrap().id();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    }

    /// Runs a command; nested answers in one line.
    pub fn command(&self, parts: &[&str]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut out = format!("*{}\r\n", parts.len());
        for part in parts {
            out += &format!("${}\r\n{part}\r\n", part.len());
        }
        stream.write_all(out.as_bytes()).unwrap();
        answer(&mut BufReader::new(stream))
    }

    /// How often a command was called.
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.command(&["INFO", "commandstats"]);
        let line = stats.lines().find_map(|line| {
            line.strip_prefix(&format!("cmdstat_{command}:calls=")).map(str::to_owned)
        });
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }
}

fn answer(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let line = line.trim_end();
    let (kind, rest) = line.split_at(1);
    match kind {
        "$" => {
            let Ok(length) = rest.parse::<usize>() else { return "(nil)".into() };
            let mut bytes = vec![0; length + 2];
            stream.read_exact(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        }
        "*" => {
            let count = rest.parse::<usize>().unwrap_or(0);
            (0..count).map(|_| answer(stream)).collect::<Vec<_>>().join(" ")
        }
        "-" => panic!("redis: {rest}"),
        _ => rest.into(),
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        if !self.directory.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// Waits until `holds`.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "it never came that {what}");
        sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}
