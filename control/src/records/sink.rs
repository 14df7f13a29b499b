//! Where access log lines go: a thread of its own, so that a slow or full disk stops nothing.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Size at which a buffer of lines is handed over.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// Buffers that may wait for the disk; past it lines are dropped and counted.
const MAX_WAITING: usize = 32;

/// How often the file's path is checked for a rotation, and a failed open retried.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Stdout,
    File(PathBuf),
}

/// The sending end. Dropping it writes what waits and ends the thread.
pub struct Sink {
    full: Option<SyncSender<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    /// Lines not written since the process began.
    dropped: Arc<AtomicU64>,
    reopen: AtomicBool,
}

impl Sink {
    /// Starts the thread. `dropped` counts lines that could not be written.
    pub fn start(destination: Destination, dropped: Arc<AtomicU64>) -> io::Result<Sink> {
        let (full, received) = sync_channel(MAX_WAITING);
        let (used, empty) = sync_channel(MAX_WAITING);
        let state = Arc::new(State { dropped, reopen: AtomicBool::new(false) });
        let output = match destination {
            Destination::Stdout => Output::Stdout,
            Destination::File(path) => Output::file(path),
        };
        let theirs = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(output, received, used, &theirs))?;
        Ok(Sink { full: Some(full), empty, state, thread: Some(thread) })
    }

    /// Hands `lines` over, never blocking, and leaves an empty buffer in its place.
    pub fn send(&self, lines: &mut Vec<u8>) {
        if lines.is_empty() {
            return;
        }
        let fresh =
            self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BUFFER_BYTES + 4096));
        let taken = std::mem::replace(lines, fresh);
        let refused = match self.full.as_ref().map(|full| full.try_send(taken)) {
            Some(Err(TrySendError::Full(lines) | TrySendError::Disconnected(lines))) => lines,
            Some(Ok(())) | None => return,
        };
        self.state.dropped.fetch_add(count_lines(&refused), Ordering::Relaxed);
    }

    /// Asks the thread to open the file anew before its next write.
    pub fn reopen(&self) {
        self.state.reopen.store(true, Ordering::Relaxed);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.full = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported on stderr already.
            _ = thread.join();
        }
    }
}

fn write_all(
    mut output: Output,
    received: Receiver<Vec<u8>>,
    used: SyncSender<Vec<u8>>,
    state: &State,
) {
    while let Ok(mut lines) = received.recv() {
        if state.reopen.swap(false, Ordering::Relaxed) {
            output.close();
        }
        let lost = output.write(&lines);
        state.dropped.fetch_add(lost, Ordering::Relaxed);
        lines.clear();
        // Full or gone: the buffer is freed here.
        _ = used.try_send(lines);
    }
}

enum Output {
    Stdout,
    File {
        path: PathBuf,
        open: Option<File>,
        checked: Option<Instant>,
        /// The last line was cut off: begin the next write with a line feed.
        torn: bool,
        /// The last failure has been reported; cleared by a success.
        complained: bool,
    },
}

impl Output {
    fn file(path: PathBuf) -> Output {
        Output::File { path, open: None, checked: None, torn: false, complained: false }
    }

    fn close(&mut self) {
        if let Output::File { open, checked, .. } = self {
            *open = None;
            *checked = None;
        }
    }

    /// Writes whole lines; returns how many of them did not make it.
    fn write(&mut self, lines: &[u8]) -> u64 {
        match self {
            // A closed stdout must not end the process: count instead.
            Output::Stdout => {
                let mut stdout = io::stdout().lock();
                match stdout.write_all(lines).and_then(|()| stdout.flush()) {
                    Ok(()) => 0,
                    Err(_) => count_lines(lines),
                }
            }
            Output::File { path, open, checked, torn, complained } => {
                let now = Instant::now();
                if checked.is_none_or(|then| now - then >= CHECK_EVERY) {
                    *checked = Some(now);
                    if open.as_ref().is_none_or(|file| moved(file, path)) {
                        *open = match append(path) {
                            Ok(file) => Some(file),
                            Err(error) => {
                                complain(complained, path, &error);
                                None
                            }
                        };
                    }
                }
                let Some(file) = open else { return count_lines(lines) };
                if *torn && file.write_all(b"\n").is_err() {
                    return count_lines(lines);
                }
                *torn = false;
                let (written, result) = write_most(file, lines);
                match result {
                    Ok(()) => *complained = false,
                    Err(error) => complain(complained, path, &error),
                }
                let rest = lines.get(written..).unwrap_or_default();
                *torn = !rest.is_empty()
                    && lines
                        .get(..written)
                        .is_some_and(|done| !done.is_empty() && !done.ends_with(b"\n"));
                count_lines(rest)
            }
        }
    }
}

/// As `write_all`, but says how far it came.
fn write_most(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

fn append(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Whether `path` no longer names `file` (logrotate moved it, somebody removed it).
fn moved(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), std::fs::metadata(path)) else { return true };
    (ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino())
}

fn complain(complained: &mut bool, path: &Path, error: &io::Error) {
    if !std::mem::replace(complained, true) {
        eprintln!(
            "sluice: the access log {} cannot be written: {error}; lines are dropped and counted in \
             sluice_access_log_dropped_lines_total until it can",
            path.display()
        );
    }
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("sluice-log-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn lines_reach_the_file_in_order() {
        let directory = scratch("order");
        let path = directory.join("deep/er/access.log");
        let dropped = Arc::new(AtomicU64::new(0));
        let sink = Sink::start(Destination::File(path.clone()), Arc::clone(&dropped)).unwrap();
        for n in 0..10 {
            sink.send(&mut format!("{n}\n").into_bytes());
        }
        drop(sink);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_moved_file_is_opened_anew_when_asked() {
        let directory = scratch("moved");
        let path = directory.join("access.log");
        let mut output = Output::file(path.clone());
        assert_eq!(output.write(b"old\n"), 0);
        std::fs::rename(&path, directory.join("access.log.1")).unwrap();
        output.close();
        assert_eq!(output.write(b"new\n"), 0);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        // /dev/full answers every write with ENOSPC.
        let mut output = Output::file("/dev/full".into());
        assert_eq!(output.write(b"a\nb\n"), 2);
        let mut output = Output::file("/proc/no/such/place".into());
        assert_eq!(output.write(b"a\n"), 1);
    }

    #[test]
    fn a_torn_line_does_not_eat_the_next_one() {
        let directory = scratch("torn");
        let path = directory.join("access.log");
        std::fs::write(&path, "whole\nhal").unwrap();
        let mut output = Output::file(path.clone());
        if let Output::File { torn, .. } = &mut output {
            *torn = true;
        }
        assert_eq!(output.write(b"next\n"), 0);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\nhal\nnext\n");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
