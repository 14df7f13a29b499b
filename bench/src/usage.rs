//! CPU time and memory of process trees, from `/proc`.

use std::collections::HashMap;
use std::fs;

/// The clock ticks of `/proc/PID/stat` are 1/100 s on every Linux that Sluice runs on.
const NS_PER_TICK: u64 = 10_000_000;

/// What is wanted from one line of `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub name: String,
    pub parent: u32,
    /// User and system time of all threads, the ended ones too, in ns (to 10 ms).
    pub cpu_ns: u64,
    /// Ticks after boot; with the id it names a process for good.
    pub started: u64,
}

/// Parses `/proc/PID/stat`. The name may hold blanks and brackets, so it ends at the last one.
pub fn parse_stat(text: &str) -> Option<Stat> {
    let (before, after) = text.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    // Field 3 of proc_pid_stat(5), the state, is the first here.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        name: name.to_owned(),
        parent: u32::try_from(number(4)?).ok()?,
        cpu_ns: (number(14)? + number(15)?) * NS_PER_TICK,
        started: number(22)?,
    })
}

/// Parses the CPU time, in ns, from `/proc/PID/task/TID/schedstat`.
pub fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Parses the resident memory, in bytes, from `/proc/PID/smaps_rollup` or `/proc/PID/status`.
pub fn parse_rss(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Rss:").or_else(|| line.strip_prefix("VmRSS:")))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn stat(id: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

/// When the process began, in ticks after boot; `None` if there is no such process.
pub fn started(id: u32) -> Option<u64> {
    stat(id).map(|stat| stat.started)
}

/// `root` and all of its descendants.
pub fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(stat) = stat(id) {
            children.entry(stat.parent).or_default().push(id);
        }
    }
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(id) = tree.get(at) {
        tree.extend(children.remove(id).unwrap_or_default());
        at += 1;
    }
    tree
}

/// The CPU time of one process, in ns. The scheduler's counters are exact; where the kernel has
/// none, the ticks have to do.
pub fn cpu_ns(id: u32) -> u64 {
    let mut sum = 0;
    let mut exact = false;
    for entry in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
        if let Some(ns) = parse_schedstat(&text) {
            sum += ns;
            exact |= ns > 0;
        }
    }
    if exact { sum } else { stat(id).map_or(0, |stat| stat.cpu_ns) }
}

/// The resident memory of one process, in bytes.
pub fn rss_bytes(id: u32) -> u64 {
    ["smaps_rollup", "status"]
        .iter()
        .find_map(|file| parse_rss(&fs::read_to_string(format!("/proc/{id}/{file}")).ok()?))
        .unwrap_or(0)
}

/// Whether `/proc/ID` looks like the part of Sluice that carries traffic.
fn is_engine(id: u32) -> bool {
    let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let name = fs::read(format!("/proc/{id}/comm")).unwrap_or_default();
    command.split(|&byte| byte == 0).any(|word| word == b"engine" || word == b"sluice-engine")
        || name.trim_ascii() == b"sluice-engine"
}

/// The CPU time of every process of a tree at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    processes: Vec<(u32, u64)>,
}

impl Reading {
    pub fn of(root: u32) -> Self {
        Self { processes: tree(root).into_iter().map(|id| (id, cpu_ns(id))).collect() }
    }

    /// The CPU time since `earlier`, in ns: of the whole tree, and of the process that carries
    /// the traffic (the one named engine, else the busiest).
    pub fn since(&self, earlier: &Self) -> (u64, u64) {
        let spent: Vec<(u32, u64)> = self
            .processes
            .iter()
            .map(|&(id, now)| {
                let before =
                    earlier.processes.iter().find(|&&(other, _)| other == id).map_or(0, |p| p.1);
                (id, now.saturating_sub(before))
            })
            .collect();
        let all = spent.iter().map(|process| process.1).sum();
        let engine = spent.iter().find(|process| is_engine(process.0));
        let busiest = spent.iter().max_by_key(|process| process.1);
        (all, engine.or(busiest).map_or(0, |process| process.1))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_stat_line_with_a_wild_name() {
        let line = "42 (a) (b c) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 1 0 777 1 2";
        let stat = parse_stat(line).unwrap();
        assert_eq!(stat.name, "a) (b c");
        assert_eq!(stat.parent, 7);
        assert_eq!(stat.cpu_ns, 2_000_000_000);
        assert_eq!(stat.started, 777);
        assert_eq!(parse_stat("42 (x) S 7"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn schedstat_and_rss() {
        assert_eq!(parse_schedstat("502394 40932 2\n"), Some(502_394));
        assert_eq!(parse_schedstat(""), None);
        assert_eq!(
            parse_rss("00400000-7ffe ---p [rollup]\nRss:    12 kB\nPss: 3 kB\n"),
            Some(12_288)
        );
        assert_eq!(parse_rss("Name:\tx\nVmRSS:\t     8 kB\n"), Some(8192));
        assert_eq!(parse_rss("Name:\tx\n"), None);
    }

    #[test]
    fn our_own_reading_grows_with_work() {
        let root = std::process::id();
        let before = Reading::of(root);
        let begun = Instant::now();
        let mut sum = 0u64;
        while begun.elapsed() < Duration::from_millis(50) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        // Counters are brought up to date at the tick: give it one.
        std::thread::sleep(Duration::from_millis(20));
        let (all, _) = Reading::of(root).since(&before);
        assert!(all > 0);
        assert!(tree(root).contains(&root));
        assert!(rss_bytes(root) > 100_000);
    }
}
