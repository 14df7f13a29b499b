//! Processes: where the binary is, running it, looking at what it started.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// The real `sluice`: `SLUICE_BIN`, or the newest of the debug and release builds beside the
/// running test.
pub fn sluice_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SLUICE_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("current_exe");
    // target/debug/deps/blackbox-… → target
    let target = test.ancestors().nth(3).expect("a target directory");
    let built = |path: &PathBuf| path.metadata().and_then(|meta| meta.modified()).ok();
    ["debug/sluice", "release/sluice"]
        .map(|name| target.join(name))
        .into_iter()
        .filter(|path| built(path).is_some())
        .max_by_key(built)
        .unwrap_or_else(|| {
            panic!(
                "no sluice in {}: run `cargo build` first, or set SLUICE_BIN to a binary",
                target.display()
            )
        })
}

/// What a finished command said.
#[derive(Debug)]
pub struct Outcome {
    /// `None`: killed by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Both streams, for looking for a word wherever it was printed.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs `sluice ARGS` to its end, 30 s at most.
pub fn cli(args: &[&str]) -> Outcome {
    let child = Command::new(sluice_binary())
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("sluice {args:?}: {e}"));
    let pid = child.id();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    match told.recv_timeout(Duration::from_secs(30)) {
        Ok(output) => {
            let output = output.unwrap_or_else(|e| panic!("sluice {args:?}: {e}"));
            Outcome {
                code: output.status.code(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }
        }
        Err(_) => {
            signal(pid, Signal::KILL);
            panic!("sluice {args:?} did not end within 30 s")
        }
    }
}

/// Sends a signal; a process that is gone is no error.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Sends a signal to a whole process group.
pub fn signal_group(leader: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, signal);
    }
}

/// Waits for a child's end, `patience` at most.
pub fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// A living process: its id and command line, the arguments separated by spaces.
#[derive(Debug, Clone)]
pub struct Running {
    pub pid: u32,
    pub command: String,
}

/// The descendants of `root` that live now (zombies left out).
pub fn descendants(root: u32) -> Vec<Running> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name in parentheses may hold anything; what follows its end is "state ppid".
        let Some((_, after)) = stat.rsplit_once(") ") else { continue };
        let mut words = after.split(' ');
        let (state, parent) = (words.next(), words.next().and_then(|ppid| ppid.parse().ok()));
        if let (Some(state), Some(parent)) = (state, parent)
            && state != "Z"
            && state != "X"
        {
            all.push((pid, parent));
        }
    }
    let mut family = vec![root];
    let mut running = Vec::new();
    while let Some(parent) = family.pop() {
        for &(pid, of) in all.iter().filter(|&&(_, of): &&(u32, u32)| of == parent) {
            debug_assert_eq!(of, parent);
            family.push(pid);
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            running.push(Running { pid, command });
        }
    }
    running
}

/// Resident memory in KiB.
pub fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse().ok())
        .unwrap_or_else(|| panic!("no VmRSS of process {pid}"))
}

/// Open file descriptors.
pub fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or(0)
}
