//! jq, in processes of their own.
//!
//! A jq program is not bounded by its text: `def f: f; f` never ends, `reduce range(99) as $i ("x"; . + .)`
//! needs more memory than there is, and recursion can use up the stack, which ends a process. None of this can
//! be stopped within a thread. So programs run in workers: children of the engine, with a bound on their
//! memory, that are killed when a program takes too long, and started again. A worker serves one program at a
//! time, and lives on for the next one.
//!
//! What is not bounded: how much of a CPU a worker takes until its time is up. There are as many at once as
//! [`limits::JQ_WORKERS`], nicer than shards.

mod program;
mod worker;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use program::{Failed, Program};
pub use worker::work;

use crate::limits;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// JSON, as far as jq's is.
    Value(Vec<u8>),
    Failed(Failed),
    /// It took too long.
    Late,
    /// The worker ended: it had no more memory or stack, or could not be started.
    Gone,
}

/// The node's workers that are at rest.
#[derive(Debug, Default)]
pub struct Workers(Mutex<Vec<Worker>>);

#[derive(Debug)]
struct Worker {
    child: Child,
    wire: UnixStream,
    /// Programs that it has run.
    runs: u32,
}

impl Workers {
    /// Runs a program in a worker. Blocks, for `timeout_ms` at most, so it is nothing for a shard.
    pub fn run(&self, program: &str, input: &[u8], timeout_ms: u32) -> Ran {
        let rested = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // One that has ended meanwhile costs another try, with a new one.
        if let Some(worker) = rested
            && let Some(ran) = self.run_with(worker, program, input, timeout_ms)
        {
            return ran;
        }
        match Worker::start() {
            Ok(worker) => self.run_with(worker, program, input, timeout_ms).unwrap_or(Ran::Gone),
            Err(_) => Ran::Gone,
        }
    }

    /// `None`: the worker could not be told.
    fn run_with(
        &self,
        mut worker: Worker,
        program: &str,
        input: &[u8],
        timeout_ms: u32,
    ) -> Option<Ran> {
        let timeout = Some(Duration::from_millis(u64::from(timeout_ms.max(1))));
        let wire = &mut worker.wire;
        wire.set_read_timeout(timeout).and_then(|()| wire.set_write_timeout(timeout)).ok()?;
        let mut told = Vec::with_capacity(8 + program.len() + input.len());
        told.extend_from_slice(&(program.len() as u32).to_le_bytes());
        told.extend_from_slice(&(input.len() as u32).to_le_bytes());
        told.extend_from_slice(program.as_bytes());
        told.extend_from_slice(input);
        wire.write_all(&told).ok()?;
        let mut head = [0; 5];
        // The whole wait for the first byte: what follows comes at once.
        if let Err(error) = wire.read_exact(&mut head) {
            let late = matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            );
            return Some(if late { Ran::Late } else { Ran::Gone });
        }
        let [tag, length @ ..] = head;
        let mut out = vec![0; (u32::from_le_bytes(length) as usize).min(limits::JQ_OUTPUT)];
        if wire.read_exact(&mut out).is_err() {
            return Some(Ran::Gone);
        }
        let ran = match tag {
            0 => Ran::Value(out),
            1 => Ran::Failed(Failed::Error(String::from_utf8_lossy(&out).into_owned())),
            _ => Ran::Failed(Failed::TooLarge),
        };
        worker.runs += 1;
        if worker.runs < limits::JQ_RUNS {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
        }
        Some(ran)
    }
}

impl Worker {
    fn start() -> std::io::Result<Worker> {
        let (wire, theirs) = UnixStream::pair()?;
        let child = command()
            .env_clear()
            // Else the allocator takes more than it may have before anything is needed.
            .env("MIMALLOC_ARENA_RESERVE", "16MiB")
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Worker { child, wire, runs: 0 })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This program once more, as a worker.
#[cfg(not(test))]
fn command() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(COMMAND);
    command
}

/// The hidden command of the binary under which it is a worker.
pub const COMMAND: &str = "run-jq";

#[cfg(test)]
fn command() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", "payload::jq::tests::a_worker_works", "--ignored", "--nocapture"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not a test: what the workers of the tests below are.
    #[test]
    #[ignore = "started by the others"]
    fn a_worker_works() {
        work();
    }

    fn run(workers: &Workers, program: &str, input: &str) -> Ran {
        workers.run(program, input.as_bytes(), 2_000)
    }

    #[test]
    fn programs_run_and_workers_live_on() {
        let workers = Workers::default();
        let id = || workers.0.lock().unwrap().first().map(|worker| worker.child.id());
        assert_eq!(run(&workers, ".a", r#"{"a":1.10}"#), Ran::Value(b"1.10".to_vec()));
        let first = id();
        assert_eq!(run(&workers, ".a | not", r#"{"a":1.10}"#), Ran::Value(b"false".to_vec()));
        let no = Ran::Failed(Failed::Error("\"no\"".into()));
        assert_eq!(run(&workers, "error(\"no\")", "1"), no);
        assert_eq!((id(), first.is_some()), (first, true));
        let large = format!("\"{}\"", "x".repeat(1 << 20));
        assert_eq!(run(&workers, ".", &large), Ran::Value(large.into_bytes()));
    }

    #[test]
    fn what_runs_away_ends_alone() {
        let workers = Workers::default();
        assert_eq!(workers.run("def f: f; f", b"1", 200), Ran::Late);
        for program in [
            // Memory, stack, and both.
            "reduce range(99) as $i (\"xx\"; . + .)",
            "def f: 1 + f; f",
            "reduce range(10000000) as $i (0; [.])",
            ".[1000000000000] = 1",
            "\"x\" * 100000000000",
        ] {
            let ran = workers.run(program, b"null", 10_000);
            assert!(!matches!(ran, Ran::Value(_)), "{program}");
            // The next one is served.
            assert_eq!(run(&workers, ".", "1"), Ran::Value(b"1".to_vec()), "after {program}");
        }
        let deep = "[".repeat(1_000_000);
        assert!(!matches!(run(&workers, "fromjson", &format!("\"{deep}\"")), Ran::Value(_)));
    }
}
