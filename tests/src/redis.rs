//! A real Redis: on a port of its own, without a file, gone with its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::scratch::{Scratch, free_port};
use crate::{PATIENCE, eventually, process};

/// A running `redis-server`.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    arguments: Vec<String>,
    process: Option<Child>,
    scratch: Scratch,
}

impl Redis {
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// With more arguments, such as `--requirepass x`.
    pub fn start_with(arguments: &[&str]) -> Redis {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        // Another process may take the port in between.
        for _ in 0..10 {
            let (arguments, scratch) = (arguments.clone(), Scratch::new());
            let mut redis = Redis { port: free_port(), arguments, process: None, scratch };
            if redis.run() {
                return redis;
            }
        }
        panic!("redis-server does not start; is it installed? (`./tests/run` installs it)");
    }

    fn run(&mut self) -> bool {
        let mut process = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--dir", &self.scratch.path().display().to_string()])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("redis-server (apt-get install redis-server): {e}"));
        let mut ended = false;
        let answers = eventually(PATIENCE, || {
            ended = !matches!(process.try_wait(), Ok(None));
            ended || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        });
        let runs = answers && !ended;
        self.process = Some(process);
        if !runs {
            self.kill();
        }
        runs
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it; what it held is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again, empty, at the same place.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.run(), "redis-server does not start again on port {}", self.port);
    }

    /// Stops it where it stands, with its connections open, or lets it go on.
    pub fn freeze(&self, frozen: bool) {
        let pid = self.process.as_ref().expect("it runs").id();
        process::signal(pid, if frozen { Signal::STOP } else { Signal::CONT });
    }

    /// Runs a command. The answer as text, lists with spaces between, nothing as `(nil)`.
    pub fn command(&self, parts: &[&str]) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .unwrap_or_else(|e| panic!("redis at {}: {e}", self.port));
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut out = format!("*{}\r\n", parts.len());
        for part in parts {
            out += &format!("${}\r\n{part}\r\n", part.len());
        }
        stream.write_all(out.as_bytes()).unwrap_or_else(|e| panic!("{parts:?}: {e}"));
        answer(&mut BufReader::new(stream)).unwrap_or_else(|e| panic!("{parts:?}: {e}"))
    }

    /// How often a command was called, in lower case.
    pub fn calls(&self, command: &str) -> u64 {
        let begin = format!("cmdstat_{command}:calls=");
        let stats = self.command(&["INFO", "commandstats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix(&begin)?.split(',').next());
        line.map_or(0, |count| count.parse().expect("a count"))
    }
}

fn answer(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let line = line.trim_end();
    let rest = line.get(1..).unwrap_or_default();
    Ok(match line.as_bytes().first() {
        Some(b'$') => {
            let Ok(length) = rest.parse::<usize>() else { return Ok("(nil)".into()) };
            let mut bytes = vec![0; length + 2];
            stream.read_exact(&mut bytes)?;
            bytes.truncate(length);
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Some(b'*') => {
            let count = rest.parse::<usize>().unwrap_or(0);
            let parts: Vec<String> =
                (0..count).map(|_| answer(stream)).collect::<Result<_, _>>()?;
            parts.join(" ")
        }
        Some(b'-') => panic!("redis says {rest}"),
        _ => rest.into(),
    })
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
