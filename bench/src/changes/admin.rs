//! Sluice's admin API, as far as it is measured.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection to an admin listener; it is opened again when it was closed.
pub struct Admin {
    port: u16,
    stream: Option<BufReader<TcpStream>>,
    /// Changes of routes so far.
    turn: u64,
}

/// A change that was made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// From the request's first byte to the answer, which comes when all shards have it.
    pub whole: Duration,
    /// From the publish to the last shard's adoption.
    pub adoption: Duration,
}

impl Admin {
    pub fn at(port: u16) -> Self {
        Self { port, stream: None, turn: 0 }
    }

    /// The status and body of an answer.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<(u16, Vec<u8>), Box<dyn Error>> {
        let kept = self.stream.is_some();
        match self.try_ask(method, path, body) {
            // It may have closed an idle connection.
            Err(_) if kept => {
                self.stream = None;
                self.try_ask(method, path, body)
            }
            done => done,
        }
    }

    fn try_ask(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<(u16, Vec<u8>), Box<dyn Error>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(("127.0.0.1", self.port))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                BufReader::new(stream)
            }
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.get_mut().write_all(head.as_bytes())?;
        stream.get_mut().write_all(body)?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status: u16 = status.ok_or("the admin listener ended the connection")?;
        let mut length = 0;
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let field = line.trim_end().to_ascii_lowercase();
            if let Some(value) = field.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if field.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        self.stream = Some(stream);
        Ok((status, answer))
    }

    /// Makes a change, and waits until all shards have it.
    pub fn change(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Made, Box<dyn Error>> {
        let begun = Instant::now();
        let (status, answer) = self.ask(method, path, body)?;
        let whole = begun.elapsed();
        if !(200..300).contains(&status) {
            let said = String::from_utf8_lossy(&answer);
            let said: String = said.chars().take(500).collect();
            return Err(format!("{method} {path} was answered {status}: {said}").into());
        }
        let answer: Value = serde_json::from_slice(&answer)?;
        let adoption = answer["convergence_us"].as_u64().ok_or("the change changed nothing")?;
        Ok(Made { whole, adoption: Duration::from_micros(adoption) })
    }

    /// Applies a whole spec.
    pub fn apply(&mut self, spec: &str) -> Result<Made, Box<dyn Error>> {
        self.change("POST", "/v1/apply", spec.as_bytes())
    }

    /// Changes one route to what it has not been before.
    pub fn patch(&mut self, route: &str) -> Result<Made, Box<dyn Error>> {
        self.turn += 1;
        let body = format!("{{\"max_body_bytes\":{}}}", 2_000_000 + self.turn);
        self.change("PATCH", &format!("/v1/spec/routes/{route}"), body.as_bytes())
    }

    /// `GET` of something in JSON.
    pub fn get(&mut self, path: &str) -> Result<Value, Box<dyn Error>> {
        let (status, answer) = self.ask("GET", path, b"")?;
        match status {
            200 => Ok(serde_json::from_slice(&answer)?),
            _ => Err(format!("GET {path} was answered {status}").into()),
        }
    }

    /// Waits until it is ready for traffic.
    pub fn wait(&mut self, patience: Duration) -> Result<(), Box<dyn Error>> {
        let end = Instant::now() + patience;
        loop {
            if let Ok((200, _)) = self.ask("GET", "/readyz", b"") {
                return Ok(());
            }
            self.stream = None;
            if Instant::now() > end {
                return Err(format!("127.0.0.1:{} is not ready in time", self.port).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
