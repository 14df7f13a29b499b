//! A memory cgroup for one test, where the kernel lets us make one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{PATIENCE, eventually};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Removed on drop, so its processes have to be gone by then.
#[derive(Debug)]
pub struct MemoryGroup {
    path: PathBuf,
}

impl MemoryGroup {
    /// A group with a limit of so many bytes, of either version of cgroups. `None`: this takes rights
    /// that the test does not have, or there are no such groups here.
    pub fn with_limit(bytes: u64) -> Option<MemoryGroup> {
        let name =
            format!("sluice-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
        membership.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, own) = (parts.next()?, parts.next()?);
            let (root, limit) = match controllers {
                "" => ("/sys/fs/cgroup", "memory.max"),
                _ if controllers.split(',').any(|one| one == "memory") => {
                    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
                }
                _ => return None,
            };
            // Inside our own, or as near as may be: in version 2 a group has processes or groups.
            let own = Path::new(root).join(own.trim_start_matches('/'));
            own.ancestors()
                .take_while(|around| around.starts_with(root))
                .find_map(|around| MemoryGroup::at(around.join(&name), limit, bytes))
        })
    }

    fn at(path: PathBuf, limit: &str, bytes: u64) -> Option<MemoryGroup> {
        fs::create_dir(&path).ok()?;
        let group = MemoryGroup { path };
        // The file is there where the group's parent hands on the memory controller.
        let file = group.path.join(limit);
        let set = file.is_file() && fs::write(file, bytes.to_string()).is_ok();
        set.then_some(group)
    }

    /// Moves a process here; what it starts from now on is born here. `false`: it may not be.
    pub fn take(&self, pid: u32) -> bool {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).is_ok()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = eventually(PATIENCE, || fs::remove_dir(&self.path).is_ok());
    }
}
