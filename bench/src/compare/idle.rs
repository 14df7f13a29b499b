//! What a connection costs that had one answer and stays open.

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::report::Sample;
use crate::load::Plan;
use crate::load::client::Secure;
use crate::load::response::Parser;
use crate::peer::Running;
use crate::tls::Session;
use crate::usage;

/// Time of some load before: what is made once is not a connection's.
const WARMUP: Duration = Duration::from_millis(500);
const WARMUP_CONNECTIONS: usize = 64;
/// Between the last answer and the reading of memory.
const SETTLE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens so many connections, each with one answer to the plan's HTTP/1.1 request.
pub fn measure(
    mut plan: Plan,
    running: &Running,
    connections: usize,
    stop: &AtomicBool,
) -> Result<Sample, Box<dyn Error>> {
    let Some(process) = &running.process else { return Ok(Sample::default()) };
    let memory = || usage::tree(process.id()).into_iter().map(usage::rss_bytes).sum::<u64>();
    (plan.warmup, plan.duration, plan.connections) = (Duration::ZERO, WARMUP, WARMUP_CONNECTIONS);
    plan.run(stop, |_, _| {})?;
    std::thread::sleep(SETTLE);
    let before = memory();
    let secure = plan.secure()?;
    let request = plan.message.http1(&plan.target);
    let mut open = Vec::with_capacity(connections);
    let mut failures = 0;
    for _ in 0..connections {
        if stop.load(Relaxed) {
            return Err("stopped".into());
        }
        match one_answer(&plan, secure.as_ref(), &request) {
            Ok(stream) => open.push(stream),
            Err(_) => failures += 1,
        }
    }
    std::thread::sleep(SETTLE);
    let after = memory();
    // A connection that was closed meanwhile is not an idle connection held.
    failures += open.iter().filter(|stream| !is_open(stream)).count() as u64;
    let held = open.len().max(1);
    Ok(Sample {
        idle_bytes: after.saturating_sub(before) as f64 / held as f64,
        connections: open.len(),
        failures,
        ..Sample::default()
    })
}

/// The session of TLS is dropped once the answer is there: the server does not know, and it would
/// only fill our own memory.
fn one_answer(plan: &Plan, secure: Option<&Secure>, request: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&plan.target.address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut session = match secure {
        None => None,
        Some(secure) => Some(
            Session::client(secure.config.clone(), secure.name.clone())
                .map_err(io::Error::other)?,
        ),
    };
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let mut parser = Parser::new(false);
    let mut asked = false;
    let mut buffer = [0; 16 * 1024];
    loop {
        match &mut session {
            Some(tls) if tls.is_handshaking() => tls.flush(&mut out),
            _ if asked => {}
            Some(tls) => {
                tls.write(request, &mut out)?;
                asked = true;
            }
            None => {
                out.extend_from_slice(request);
                asked = true;
            }
        }
        stream.write_all(&out)?;
        out.clear();
        let received = stream.read(&mut buffer)?;
        let wire = buffer.get(..received).unwrap_or_default();
        if wire.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        plain.clear();
        match &mut session {
            Some(tls) => {
                tls.feed(wire, &mut plain, &mut out).map_err(io::Error::other)?;
            }
            None => plain.extend_from_slice(wire),
        }
        let mut rest = &plain[..];
        while !rest.is_empty() {
            match parser.feed(rest) {
                Ok((_, Some(answer))) if answer.status == 200 && !answer.close => {
                    return Ok(stream);
                }
                Ok((used, None)) => rest = rest.get(used..).unwrap_or_default(),
                _ => return Err(ErrorKind::InvalidData.into()),
            }
        }
    }
}

fn is_open(stream: &TcpStream) -> bool {
    // Session tickets may have come after the answer, so there may be something to read.
    let mut buffer = [0; 4096];
    let mut stream = stream;
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}
