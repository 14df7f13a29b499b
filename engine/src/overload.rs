//! What a node refuses when it is asked too much: requests with a low priority first, and each of them
//! as soon as its route is known, when nothing has been done for it yet.
//!
//! Two things are judged. The delay with which ready work gets its core (`io/lag.rs`), by each shard for
//! itself. And the memory, by the main thread, which reads the kernel's files for all shards. While either is
//! over its bound the pressure rises, else it falls; the pressure says which share of each priority
//! is refused.
//!
//! Connections are still accepted, and those that there are kept: a client that is turned away connects
//! again at once, which costs more than an answer. How many there may be is `max_connections`.

use std::cell::Cell;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use contract::snapshot::{Overload, Priority};

/// How often pressure changes, in milliseconds: once per interval of the delay's measure.
const STEP_MS: u64 = 100;
/// By how much it rises in a step, in thousandths: from nothing to all in 2 s.
const RISE: u32 = 50;
/// By how much it falls. Slower, so that it comes to rest near what the node can bear.
const FALL: u32 = 20;
/// How often the memory is looked at.
pub const MEMORY_PERIOD: Duration = Duration::from_millis(250);

/// One shard's pressure.
#[derive(Debug, Default)]
pub struct Pressure {
    /// 0: nothing is refused; 1000: all but [`Priority::Critical`].
    permille: Cell<u32>,
    stepped_ms: Cell<u64>,
}

impl Pressure {
    /// Whether to refuse a request of this priority. `standing_us` is the delay of ready work,
    /// `memory_permille` the share of the memory in use (0: unknown), `random` any word.
    #[inline]
    pub fn refuses(
        &self,
        priority: Priority,
        bounds: &Overload,
        standing_us: u64,
        memory_permille: u32,
        now_ms: u64,
        random: impl FnOnce() -> u64,
    ) -> bool {
        if now_ms.saturating_sub(self.stepped_ms.get()) >= STEP_MS {
            self.step(bounds, standing_us, memory_permille, now_ms);
        }
        let permille = self.permille.get();
        permille > 0 && random() % 1_000 < u64::from(refused_permille(priority, permille))
    }

    #[cold]
    fn step(&self, bounds: &Overload, standing_us: u64, memory_permille: u32, now_ms: u64) {
        let steps = now_ms.saturating_sub(self.stepped_ms.replace(now_ms)) / STEP_MS;
        // More than one step has passed only if no request came meanwhile.
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        let delay_us = u64::from(bounds.queue_delay_ms) * 1_000;
        let memory = u32::from(bounds.memory_percent) * 10;
        let late = delay_us > 0 && standing_us > delay_us;
        let full = memory > 0 && memory_permille > memory;
        // Between half and all of the bound the pressure stays: it has found its place.
        let relieved = (delay_us == 0 || standing_us <= delay_us / 2)
            && (memory == 0 || memory_permille <= memory.saturating_sub(20));
        let permille = self.permille.get();
        self.permille.set(if late || full {
            (permille + RISE).min(1_000)
        } else if relieved {
            permille.saturating_sub(FALL.saturating_mul(steps))
        } else {
            permille
        });
    }
}

/// Which share of a priority's requests is refused under a pressure, in thousandths: each priority
/// begins where the one before it is refused whole.
fn refused_permille(priority: Priority, permille: u32) -> u32 {
    let from = match priority {
        Priority::Low => 0,
        Priority::Normal => 333,
        Priority::High => 666,
        Priority::Critical => return 0,
    };
    (permille.saturating_sub(from) * 3).min(1_000)
}

/// The share of the memory in use, for all shards of the node.
#[derive(Debug, Default)]
pub struct Memory {
    permille: AtomicU32,
}

impl Memory {
    /// In thousandths of what there is; 0: not known.
    #[inline]
    pub fn permille(&self) -> u32 {
        // Nothing else is published with it.
        self.permille.load(Ordering::Relaxed)
    }

    /// Looks at the memory. To be called each [`MEMORY_PERIOD`].
    pub fn look(&self) {
        self.permille.store(used_permille(&Files::system()), Ordering::Relaxed);
    }

    /// Nobody looks any more.
    pub fn forget(&self) {
        self.permille.store(0, Ordering::Relaxed);
    }
}

/// What the kernel tells; a file that is missing or strange is empty.
#[derive(Default)]
struct Files {
    meminfo: String,
    statm: String,
    groups: Vec<Group>,
}

/// A memory cgroup that the process is in.
#[derive(Default)]
struct Group {
    limit: String,
    usage: String,
    stat: String,
}

impl Files {
    fn system() -> Files {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let groups = directories(&read("/proc/self/cgroup")).into_iter().map(|(at, names)| {
            let [limit, usage, stat] = names.map(|name| format!("{at}/{name}"));
            let limit = read(&limit);
            // Most have none.
            match bound(&limit) {
                Some(_) => Group { limit, usage: read(&usage), stat: read(&stat) },
                None => Group::default(),
            }
        });
        Files {
            groups: groups.collect(),
            meminfo: read("/proc/meminfo"),
            statm: read("/proc/self/statm"),
        }
    }
}

/// Files of a cgroup: its limit, its use, and what that is made of.
type Names = [&'static str; 3];
const V1: Names = ["memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"];
const V2: Names = ["memory.max", "memory.current", "memory.stat"];

/// The directories of the process's memory cgroups: its own and those around it, as each may have a
/// limit. Up to the mount's root: inside a container that may be the process's own, whatever it is
/// called outside.
fn directories(membership: &str) -> Vec<(String, Names)> {
    let mut directories = Vec::new();
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, names) = match controllers {
            "" => ("/sys/fs/cgroup", V2),
            _ if controllers.split(',').any(|one| one == "memory") => ("/sys/fs/cgroup/memory", V1),
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        while let Some((around, _)) = path.rsplit_once('/') {
            directories.push((format!("{root}{path}"), names));
            path = around;
        }
        directories.push((root.into(), names));
    }
    directories
}

/// A limit, unless it is none: version 2 says `max`, version 1 a number that no machine has.
fn bound(limit: &str) -> Option<u64> {
    limit.trim().parse().ok().filter(|limit| (1..1 << 60).contains(limit))
}

/// The largest of several shares: of each cgroup's limit, without what the kernel would drop first; and
/// of what this process has and could still get on the machine. (A machine that others have filled is
/// no reason to refuse: that would give none of it back.)
fn used_permille(files: &Files) -> u32 {
    let labelled = |text: &str, label: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.split([' ', ':']).next() == Some(label))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let share = |used: u64, all: u64| {
        let permille = u128::from(used) * 1_000 / u128::from(all.max(1));
        u32::try_from(permille).unwrap_or(u32::MAX).min(1_000)
    };
    let of_group = |group: &Group| {
        let (limit, usage) = (bound(&group.limit)?, group.usage.trim().parse::<u64>().ok()?);
        // Version 1 has both, of which only the first is of the groups inside, too.
        let caches = labelled(&group.stat, "total_inactive_file")
            .or_else(|| labelled(&group.stat, "inactive_file"))
            .unwrap_or(0);
        Some(share(usage.saturating_sub(caches), limit))
    };
    let pages = files.statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let available = labelled(&files.meminfo, "MemAvailable");
    let of_machine = pages.zip(available).map(|(pages, available_kib)| {
        let used = pages.saturating_mul(rustix::param::page_size() as u64);
        share(used, used.saturating_add(available_kib.saturating_mul(1024)))
    });
    files.groups.iter().filter_map(of_group).chain(of_machine).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Overload = Overload { queue_delay_ms: 100, memory_percent: 90 };

    /// Lets time pass in steps, under this delay and memory; how many of 1,000 are refused then.
    fn after(pressure: &Pressure, ms: u64, delay_ms: u64, memory: u32) -> [usize; 4] {
        let mut now_ms = pressure.stepped_ms.get();
        for _ in 0..ms / STEP_MS {
            now_ms += STEP_MS;
            pressure.refuses(Priority::Low, &BOUNDS, delay_ms * 1_000, memory, now_ms, || 0);
        }
        [Priority::Low, Priority::Normal, Priority::High, Priority::Critical].map(|priority| {
            let refuses = |random: &u64| {
                let random = *random;
                pressure.refuses(priority, &BOUNDS, 0, 0, now_ms, || random)
            };
            (0..1_000u64).filter(refuses).count()
        })
    }

    #[test]
    fn low_goes_first_and_critical_never() {
        let pressure = Pressure::default();
        assert_eq!(after(&pressure, 1_000, 100, 900), [0; 4], "at the bounds, not over");
        assert_eq!(after(&pressure, 300, 101, 0), [450, 0, 0, 0]);
        assert_eq!(after(&pressure, 600, 101, 0), [1_000, 351, 0, 0]);
        assert_eq!(after(&pressure, 600, 0, 901), [1_000, 1_000, 252, 0], "memory counts alike");
        assert_eq!(after(&pressure, 60_000, 500, 1_000), [1_000, 1_000, 1_000, 0]);
        let held = after(&pressure, 60_000, 60, 0);
        assert_eq!(held, [1_000, 1_000, 1_000, 0], "between half and all of it nothing changes");
        assert_eq!(after(&pressure, 2_000, 50, 880), [1_000, 801, 0, 0]);
        assert_eq!(after(&pressure, 60_000, 50, 880), [0; 4]);
    }

    #[test]
    fn what_has_no_bound_is_not_judged() {
        let none = Overload { queue_delay_ms: 0, memory_percent: 0 };
        let pressure = Pressure::default();
        for now_ms in (0..100_000).step_by(50) {
            assert!(!pressure.refuses(Priority::Low, &none, u64::MAX, 1_000, now_ms, || 0));
        }
    }

    #[test]
    fn a_pause_lets_the_pressure_fall_at_once() {
        let pressure = Pressure::default();
        after(&pressure, 60_000, 500, 0);
        let now_ms = pressure.stepped_ms.get() + 60_000;
        assert!(!pressure.refuses(Priority::Low, &BOUNDS, 0, 0, now_ms, || 0));
    }

    fn files(limit: &str, usage: &str, stat: &str) -> Files {
        Files {
            meminfo: "MemTotal:       24000000 kB\nMemAvailable:   300000 kB\n".into(),
            statm: format!("9999 {} 3 4 5 6 7\n", 100_000 * 1024 / rustix::param::page_size()),
            groups: vec![
                Group::default(),
                Group { limit: limit.into(), usage: usage.into(), stat: stat.into() },
                Group { limit: "1000".into(), usage: "10".into(), stat: String::new() },
            ],
        }
    }

    #[test]
    fn memory_is_judged_by_the_nearer_bound() {
        assert_eq!(
            used_permille(&files("max\n", "500\n", "")),
            250,
            "a quarter of what it can get"
        );
        assert_eq!(used_permille(&files("1000\n", "950\n", "anon 1\ninactive_file 50\n")), 900);
        assert_eq!(
            used_permille(&files("1000", "950", "inactive_file 1\ntotal_inactive_file 350\n")),
            600
        );
        assert_eq!(used_permille(&files("9223372036854771712", "950", "")), 250);
        let nothing =
            Files { meminfo: "what?".into(), groups: vec![Group::default()], ..files("", "", "") };
        assert_eq!(used_permille(&nothing), 0, "not known is not judged");
    }

    #[test]
    fn the_cgroups_of_either_version_are_found() {
        let found = |membership: &str| -> Vec<String> {
            let directories = directories(membership);
            directories.into_iter().map(|(at, names)| format!("{at}/{}", names[0])).collect()
        };
        assert_eq!(
            found("12:cpu,cpuacct:/a\n4:memory:/b/c\n0::/\n"),
            [
                "/sys/fs/cgroup/memory/b/c/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/b/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(
            found("0::/user.slice/x:y\n"),
            [
                "/sys/fs/cgroup/user.slice/x:y/memory.max",
                "/sys/fs/cgroup/user.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert!(found("").is_empty() && found("x\n:::").len() <= 2);
        assert!(used_permille(&Files::system()) <= 1_000);
    }

    proptest! {
        #[test]
        fn any_history_stays_in_bounds(
            history in proptest::collection::vec((0u64..1_000, 0u64..1_000, 0u32..1_001), 1..200),
        ) {
            let pressure = Pressure::default();
            let mut now_ms = 0;
            for (pause_ms, delay_ms, memory) in history {
                now_ms += pause_ms;
                let critical = Priority::Critical;
                prop_assert!(
                    !pressure.refuses(critical, &BOUNDS, delay_ms * 1_000, memory, now_ms, || 0)
                );
                prop_assert!(pressure.permille.get() <= 1_000);
            }
        }
    }
}
