//! What the machine must offer before a shard starts, told in one clear line when it does not.

use std::fmt;
use std::io;

use io_uring::{IoUring, Probe, opcode};

use super::buffers::Buffers;

/// Lockable memory that one shard needs, in KiB (its own ring and glommio's three).
const MEMLOCK_KIB_PER_SHARD: u64 = 512;

/// Why the engine cannot run here, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    what: String,
    remedy: String,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for StartError {}

impl StartError {
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> StartError {
        StartError { what: what.into(), remedy: remedy.into() }
    }

    pub(super) fn executor(cpu: Option<usize>, error: &str) -> StartError {
        let place = cpu.map_or(String::new(), |cpu| format!(" on CPU {cpu}"));
        StartError::new(
            format!("the shard's executor cannot start{place}: {error}"),
            "check that the CPU is in this process's affinity mask (taskset -p) and that \
             `ulimit -l` allows 512 KiB per shard",
        )
    }

    pub(super) fn ring(error: &io::Error) -> StartError {
        match error.raw_os_error() {
            Some(libc::EPERM) => StartError::new(
                format!("this system forbids io_uring ({error})"),
                "set `sysctl kernel.io_uring_disabled=0`, or, in a container, allow the io_uring \
                 calls in its seccomp profile (Docker: --security-opt seccomp=FILE)",
            ),
            Some(libc::ENOSYS) => StartError::new(
                "this kernel has no io_uring",
                "run Linux 6.1 or newer, or allow io_uring_setup in the container's seccomp profile",
            ),
            Some(libc::EINVAL) => StartError::new(
                format!("this kernel ({}) lacks io_uring features the engine needs", release()),
                "run Linux 6.1 or newer (SINGLE_ISSUER, DEFER_TASKRUN, provided buffer rings)",
            ),
            Some(libc::ENOMEM) => StartError::new(
                format!("not enough lockable memory for a ring (limit {})", memlock_text()),
                format!(
                    "raise it: `ulimit -l unlimited`, or LimitMEMLOCK= in systemd \
                     ({MEMLOCK_KIB_PER_SHARD} KiB per shard)"
                ),
            ),
            _ => StartError::new(
                format!("io_uring cannot be set up: {error}"),
                "see `man 2 io_uring_setup` for this error",
            ),
        }
    }
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn memlock_kib() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    limit.current.map(|bytes| bytes / 1024)
}

fn memlock_text() -> String {
    memlock_kib().map_or("unlimited".into(), |kib| format!("{kib} KiB"))
}

/// Tries everything that a shard needs, on rings of its own that are dropped again.
///
/// # Errors
/// The first thing that is missing, with its remedy.
pub fn probe(shards: usize) -> Result<(), StartError> {
    if let Some(kernel) = kernel_too_old(&release()) {
        return Err(kernel);
    }
    let build = || {
        IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .build(64)
    };
    let ring = build().map_err(|error| StartError::ring(&error))?;
    let mut operations = Probe::new();
    ring.submitter().register_probe(&mut operations).map_err(|error| StartError::ring(&error))?;
    let needed = [
        (opcode::Accept::CODE, "ACCEPT"),
        (opcode::Recv::CODE, "RECV"),
        (opcode::Send::CODE, "SEND"),
        (opcode::Connect::CODE, "CONNECT"),
        (opcode::Close::CODE, "CLOSE"),
        (opcode::PollAdd::CODE, "POLL_ADD"),
        (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    ];
    if let Some((_, name)) = needed.iter().find(|(code, _)| !operations.is_supported(*code)) {
        return Err(StartError::new(
            format!("io_uring refuses the {name} operation"),
            "run Linux 6.1 or newer, or lift the restriction on io_uring operations",
        ));
    }
    Buffers::new(&ring, 16, 1024, 16).map_err(|error| StartError::ring(&error))?;
    let need = MEMLOCK_KIB_PER_SHARD * shards as u64;
    if memlock_kib().is_some_and(|limit| limit < need) && !may_exceed_memlock() {
        return Err(StartError::new(
            format!(
                "{shards} shards need {need} KiB of lockable memory, the limit is {}",
                memlock_text()
            ),
            "raise it: `ulimit -l unlimited`, or LimitMEMLOCK= in systemd; or run fewer shards \
             (--shards)",
        ));
    }
    Ok(())
}

/// Root with CAP_IPC_LOCK is not bound by the limit.
fn may_exceed_memlock() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::IPC_LOCK))
}

fn kernel_too_old(release: &str) -> Option<StartError> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return None };
    ((major, minor) < (6, 1)).then(|| {
        StartError::new(
            format!("Linux {release} is too old for the engine"),
            "run Linux 6.1 or newer (SINGLE_ISSUER, DEFER_TASKRUN, multishot receive)",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_named_with_a_remedy() {
        for old in ["5.15.0-91-generic", "6.0.19", "4.19"] {
            let error = kernel_too_old(old).expect("too old").to_string();
            assert!(error.contains(old) && error.contains("6.1"), "{error}");
        }
        for good in ["6.1.0", "6.18.44-fc", "7.0", "weird"] {
            assert_eq!(kernel_too_old(good), None);
        }
    }

    #[test]
    fn refusals_name_the_switch_to_flip() {
        let text = |errno| StartError::ring(&io::Error::from_raw_os_error(errno)).to_string();
        assert!(text(libc::EPERM).contains("kernel.io_uring_disabled"));
        assert!(text(libc::EPERM).contains("seccomp"));
        assert!(text(libc::ENOMEM).contains("ulimit -l"));
        assert!(text(libc::EINVAL).contains("6.1"));
    }

    #[test]
    fn this_machine_passes() {
        assert_eq!(probe(1), Ok(()));
    }
}
