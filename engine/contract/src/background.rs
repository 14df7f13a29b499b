//! Threads for which no request waits.

use std::mem::size_of;

/// The time slice of such a thread in nanoseconds: the shortest that Linux takes.
const SLICE_NS: u64 = 100_000;

/// Makes this thread, and those that it starts, give way to shards: with `nice` (0 to 19) it gets little of a
/// CPU that others want, and with the short slice it gives that back soon. A shard that shares the CPU waits
/// for the end of a slice, which would be up to 3 ms long by default, and before Linux 6.12 still is. A policy
/// that an administrator has chosen stands.
///
/// See sched_setattr(2); Linux Documentation/scheduler/sched-eevdf.rst.
pub fn give_way(nice: i32) {
    // SAFETY: the structure is plain numbers, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>() as libc::c_uint;
    let this_thread: libc::pid_t = 0;
    let flags: libc::c_uint = 0;
    // SAFETY: the kernel writes at most `size` bytes to the structure, which has as many, and outlives the call.
    let got = unsafe {
        libc::syscall(libc::SYS_sched_getattr, this_thread, &raw mut attributes, size, flags)
    };
    if got != 0 || attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return;
    }
    attributes.size = size;
    // Never less nice than it was started.
    attributes.sched_nice = attributes.sched_nice.max(nice.clamp(0, 19));
    attributes.sched_runtime = SLICE_NS;
    // SAFETY: the kernel reads `attributes.size` bytes of the structure, which has as many, and keeps none.
    // What it answers does not matter: all works without it, and shards wait longer.
    let _ = unsafe {
        libc::syscall(libc::SYS_sched_setattr, this_thread, &raw const attributes, flags)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_gives_way_is_nicer_and_so_are_those_it_starts() {
        let nice = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("a thread has one");
            // Field 19, counted from behind the name, which may have spaces (proc_pid_stat(5)).
            let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            fields.into_iter().nth(16).and_then(|text| text.parse::<i32>().ok()).expect("a number")
        };
        let before = nice();
        let (own, started) = std::thread::spawn(move || {
            give_way(7);
            (nice(), std::thread::spawn(nice).join().expect("a thread"))
        })
        .join()
        .expect("a thread");
        assert_eq!((own, started), (before.max(7), before.max(7)));
        assert_eq!(nice(), before, "others stay as they are");
    }
}
