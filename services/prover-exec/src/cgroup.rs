//! Cgroups of version 2: limits for all processes of a program together.

use crate::Limits;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Time that the quota of `cpu.max` refers to, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// Start of the names of programs' cgroups.
const PREFIX: &str = "prover-exec-";

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Cgroup of one program. It is removed when this value is dropped, if its processes have ended.
#[derive(Debug)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Makes a cgroup below the configured one, with the limits of a program.
pub(crate) fn create(limits: &Limits) -> io::Result<Cgroup> {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = limits
        .cgroup
        .join(format!("{PREFIX}{}-{count}", std::process::id()));
    fs::create_dir(&path)?;
    let cgroup = Cgroup(path);
    set(cgroup.path(), limits)?;
    Ok(cgroup)
}

fn set(path: &Path, limits: &Limits) -> io::Result<()> {
    let write = |file: &str, text: String| {
        fs::write(path.join(file), text)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.join(file).display())))
    };
    if limits.memory_bytes > 0 {
        write("memory.max", limits.memory_bytes.to_string())?;
        // Swap would only slow the program down before it ends. Not every kernel counts it.
        let _ = write("memory.swap.max", "0".into());
    }
    if limits.cpu_millis > 0 {
        let quota = (limits.cpu_millis * CPU_PERIOD_US / 1000).max(1000);
        write("cpu.max", format!("{quota} {CPU_PERIOD_US}"))?;
    }
    Ok(())
}

/// Removes the cgroups of dead adapters, whose processes have ended.
pub(crate) fn sweep(limits: &Limits) {
    let Ok(entries) = fs::read_dir(&limits.cgroup) else {
        return;
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    for name in names.filter(|name| name.starts_with(PREFIX)) {
        // A cgroup with a process in it cannot be removed.
        remove(&limits.cgroup.join(name));
    }
}

/// Removes a cgroup without processes.
pub(crate) fn remove(cgroup: &Path) {
    let _ = fs::remove_dir(cgroup);
}

/// Kills all processes of a cgroup at once.
pub(crate) fn kill(cgroup: &Path) {
    // A kernel before 5.14 has no such file; the keeper's own signals follow.
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
}

/// Returns whether the kernel killed a process of the cgroup because its memory was used up.
pub(crate) fn oom_killed(cgroup: &Path) -> bool {
    let events = fs::read_to_string(cgroup.join("memory.events")).unwrap_or_default();
    let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    kills.is_some_and(|kills| kills.trim() != "0")
}
