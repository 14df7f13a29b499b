//! One child process: started again whenever it ends, a little later each time.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// First and longest pause before a restart.
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// A child that lived this long begins anew with the shortest pause.
const STEADY: Duration = Duration::from_secs(5);

/// A child that should run.
pub struct Ward {
    /// For messages.
    pub name: &'static str,
    process: Option<Process>,
    /// When to start it again.
    due: Option<Instant>,
    pause: Duration,
}

struct Process {
    child: Child,
    /// Readable once the process has ended.
    pidfd: OwnedFd,
    since: Instant,
}

/// How to start a child.
pub struct Start<'a> {
    /// The hidden subcommand and its arguments.
    pub arguments: Vec<String>,
    /// Becomes its standard input: the way to hand over one descriptor without naming a number.
    pub stdin: Stdio,
    /// Inherited under the same numbers.
    pub inherit: Vec<BorrowedFd<'a>>,
    /// Added to its environment.
    pub environment: Vec<(&'static str, String)>,
}

impl Ward {
    pub fn new(name: &'static str) -> Ward {
        Ward { name, process: None, due: None, pause: MIN_PAUSE }
    }

    /// Starts the process. Must be called from the main thread: the kernel ends children with the
    /// *thread* that started them.
    pub fn start(&mut self, start: Start<'_>) -> io::Result<()> {
        self.due = None;
        match spawn(start) {
            Ok(process) => {
                self.process = Some(process);
                Ok(())
            }
            Err(error) => {
                self.schedule(Instant::now());
                Err(error)
            }
        }
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// What to poll for the end of the process.
    pub fn end(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(|process| process.pidfd.as_fd())
    }

    /// When to call [`Ward::start`] again.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Collects the process if it has ended, and plans its restart.
    pub fn reap(&mut self, now: Instant) -> Option<ExitStatus> {
        let process = self.process.as_mut()?;
        let status = match process.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status,
            // It is not our child any more: as good as ended.
            Err(_) => ExitStatus::default(),
        };
        if now.duration_since(process.since) >= STEADY {
            self.pause = MIN_PAUSE;
        }
        self.process = None;
        self.schedule(now);
        Some(status)
    }

    fn schedule(&mut self, now: Instant) {
        self.due = Some(now + self.pause);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            // It may just have ended.
            _ = pidfd_send_signal(&process.pidfd, signal);
        }
    }
}

fn spawn(start: Start<'_>) -> io::Result<Process> {
    let mut command = Command::new("/proc/self/exe");
    // Memory of what a change replaced is kept this long (ms) for what replaces that: giving it back at
    // once interrupts every thread, the shards among them.
    command.env("MIMALLOC_PURGE_DELAY", "1000");
    command
        .arg0("sluice")
        .args(&start.arguments)
        .args(["--parent", &std::process::id().to_string()])
        .envs(start.environment.iter().map(|(name, value)| (name, value)))
        .stdin(start.stdin)
        // Its own group: Ctrl-C in a terminal reaches the supervisor alone, which drains first.
        .process_group(0);
    // Only this thread starts processes, so nothing else can inherit in between.
    for fd in &start.inherit {
        fcntl_setfd(fd, FdFlags::empty())?;
    }
    let spawned = command.spawn();
    for fd in &start.inherit {
        fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    let mut child = spawned?;
    let pidfd = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("the kernel gave no process id"))
        .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
    match pidfd {
        Ok(pidfd) => Ok(Process { child, pidfd, since: Instant::now() }),
        Err(error) => {
            _ = child.kill();
            _ = child.wait();
            Err(error)
        }
    }
}

/// `fd` as an argument for a child that inherits it.
pub fn number(fd: &impl AsFd) -> String {
    fd.as_fd().as_raw_fd().to_string()
}

/// Opens the inherited descriptor `number` by way of `/proc`: a new description of the same file,
/// which needs no `unsafe`. Works for files and memfds, not for sockets.
pub fn inherited(number: i32, write: bool) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{number}");
    Ok(std::fs::OpenOptions::new().read(true).write(write).open(path)?.into())
}

/// The standard input as a descriptor of its own.
pub fn stdin() -> io::Result<OwnedFd> {
    io::stdin().as_fd().try_clone_to_owned()
}

/// What every child does first: end with its parent, by `signal`.
pub fn follow_parent(parent: u32, signal: Signal, name: &std::ffi::CStr) -> io::Result<()> {
    _ = rustix::thread::set_name(name);
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    // The parent may have ended before the call above.
    if is_parent(parent) {
        return Ok(());
    }
    Err(io::Error::other("this command is for `sluice up`, which is gone"))
}

/// Whether process `id` is the parent still.
pub fn is_parent(id: u32) -> bool {
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    now.and_then(|now| u32::try_from(now).ok()) == Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(ward: &mut Ward) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = ward.reap(Instant::now()) {
                return status;
            }
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn ward(since: Instant) -> Ward {
        let child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let mut ward = Ward::new("true");
        ward.process = Some(Process { child, pidfd, since });
        ward
    }

    #[test]
    fn pauses_grow_until_the_child_is_steady() {
        let now = Instant::now();
        let mut waits = ward(now);
        assert!(wait(&mut waits).success());
        assert!(!waits.is_running());
        assert!(waits.due().is_some_and(|due| due <= Instant::now() + MIN_PAUSE));
        for _ in 0..20 {
            waits.schedule(now);
        }
        assert_eq!(waits.due(), Some(now + MAX_PAUSE));

        let mut steady = ward(now.checked_sub(STEADY * 2).unwrap_or(now));
        steady.pause = MAX_PAUSE;
        wait(&mut steady);
        assert_eq!(steady.pause, MIN_PAUSE * 2);
    }
}
