//! Threads and child processes held to a CPU, and children that never outlive us.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::usage;

/// A flag that Ctrl-C or a polite kill sets; the second one ends us at once.
pub fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

/// The CPUs that this process may use, in order.
pub fn cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// The number of CPUs that are switched on, whether we may use them or not.
pub fn online_cpus() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    Some(text.lines().filter(|line| line.starts_with("processor")).count()).filter(|&n| n > 0)
}

/// Holds the calling thread to one CPU.
pub fn this_thread(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::other(format!("there is no CPU {cpu}")));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
        .map_err(|error| io::Error::other(format!("cannot run on CPU {cpu}: {error}")))
}

/// Raises the bound on open files as far as it goes, and returns it.
pub fn raise_open_files() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(1 << 20, |hard| hard.max(65_536));
    // Beyond the hard bound needs a privilege; then the hard bound it is.
    if setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: Some(wanted) }).is_err()
    {
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What `bench pinned --cpu N -- COMMAND…` does: become COMMAND, on CPU N, with a raised bound
/// on open files, ended by the kernel when the parent ends. A step of its own because doing it
/// between fork and exec would need unsafe code.
pub fn exec(cpu: Option<usize>, parent: i32, command: &[String]) -> io::Error {
    let Some((program, arguments)) = command.split_first() else {
        return io::Error::other("no command was given");
    };
    if let Some(Err(error)) = cpu.map(this_thread) {
        return error;
    }
    raise_open_files();
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        return error.into();
    }
    // The parent may have ended before the line above.
    if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent) {
        return io::Error::other("the parent has ended");
    }
    let error = Command::new(program).args(arguments).exec();
    io::Error::other(format!("cannot run {program}: {error}"))
}

/// A running child with all of its descendants. Dropping it ends them.
pub struct Pinned {
    name: String,
    child: std::process::Child,
    log: PathBuf,
}

impl Pinned {
    /// Starts `program` on `cpu`, in `directory`, in a process group of its own. Its output goes
    /// to `NAME.log` there.
    pub fn start<I: AsRef<OsStr>>(
        name: &str,
        cpu: usize,
        directory: &Path,
        program: &Path,
        arguments: impl IntoIterator<Item = I>,
    ) -> io::Result<Self> {
        Self::start_with(name, Some(cpu), directory, program, arguments, &[])
    }

    /// As [`Pinned::start`], on any CPU.
    pub fn start_anywhere<I: AsRef<OsStr>>(
        name: &str,
        directory: &Path,
        program: &Path,
        arguments: impl IntoIterator<Item = I>,
    ) -> io::Result<Self> {
        Self::start_with(name, None, directory, program, arguments, &[])
    }

    /// As [`Pinned::start`], on `cpu` or any, with more in its environment.
    pub fn start_with<I: AsRef<OsStr>>(
        name: &str,
        cpu: Option<usize>,
        directory: &Path,
        program: &Path,
        arguments: impl IntoIterator<Item = I>,
        environment: &[(&str, &str)],
    ) -> io::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let out = File::create(&log)?;
        let child = Command::new(std::env::current_exe()?)
            .arg("pinned")
            .args(cpu.map(|cpu| format!("--cpu={cpu}")))
            .args(["--parent", &std::process::id().to_string(), "--"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(directory)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something accepts on `address`.
    pub fn wait_for(
        &mut self,
        address: SocketAddr,
        patience: Duration,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failure(&format!("ended with {status} before it listened")));
            }
            if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
                return Ok(());
            }
            if stop.load(Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if Instant::now() > end {
                return Err(self.failure(&format!("did not listen on {address} in time")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// An error that carries the end of what the child has said.
    pub fn failure(&self, what: &str) -> io::Error {
        let said = std::fs::read(&self.log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n  ");
        io::Error::other(format!("{} {what}; it said:\n  {tail}", self.name))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Descendants may have process groups of their own, so they are looked up one by one;
        // the start time tells whether an id still means the same process.
        let tree: Vec<(u32, Option<u64>)> =
            usage::tree(self.child.id()).iter().map(|&id| (id, usage::started(id))).collect();
        send(self.child.id(), Signal::TERM);
        let patience = Instant::now() + Duration::from_secs(3);
        while Instant::now() < patience && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        for (id, started) in tree {
            if started.is_some() && usage::started(id) == started {
                send(id, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

fn send(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// A port on loopback that was free a moment ago.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
