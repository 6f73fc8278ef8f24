//! What a process takes, as the system tells it.

use std::fs;

/// What a process takes at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Resident memory in megabytes (2^20 bytes).
    pub(crate) rss_mb: f64,
    /// Open files, connections among them.
    pub(crate) files: u64,
}

impl Usage {
    /// That of this process; nothing if it has ended.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: f64 = resident.split_whitespace().next()?.parse().ok()?;
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        Some(Self {
            rss_mb: kib / 1024.0,
            files: files as u64,
        })
    }
}
