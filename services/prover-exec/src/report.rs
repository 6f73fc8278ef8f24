//! Messages between adapter and keeper: the adapter's order, and the keeper's report.

use serde::{Deserialize, Serialize};
use std::{os::unix::process::ExitStatusExt, path::PathBuf, process::ExitStatus};

/// Length of the end of each output stream that a report holds, in bytes.
pub(crate) const TAIL_LEN: usize = 64 << 10;

/// Order for a keeper. The program and its arguments follow it on the command line.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    /// Time between SIGTERM and SIGKILL.
    pub(crate) grace_ms: u64,
    /// Working directory of the program: that of its attempt.
    pub(crate) directory: PathBuf,
    /// Scratch directory, which stays locked until the keeper ends.
    pub(crate) scratch: PathBuf,
    /// Log of the whole output; `None` keeps none.
    pub(crate) log: Option<LogOrder>,
    /// Limits that the program sets for itself before it starts.
    pub(crate) rlimits: Rlimits,
    /// Cgroup of the program, which the keeper removes.
    pub(crate) cgroup: Option<PathBuf>,
}

/// Where the whole output goes.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct LogOrder {
    pub(crate) path: PathBuf,
    /// Size limit in bytes.
    pub(crate) max: u64,
    /// First line.
    pub(crate) title: String,
}

/// Limits by `setrlimit`; `None` leaves the adapter's own.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Rlimits {
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) cpu_seconds: Option<u64>,
    pub(crate) file_bytes: Option<u64>,
}

/// Report of a keeper: one line of JSON.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The program did not start.
    NotStarted(NotStarted),
    /// The program ended by itself.
    Ended(Ended),
}

/// Reason why a program did not start: its surroundings, because the task has no part in it.
#[derive(Debug, Deserialize, Serialize, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct NotStarted {
    pub(crate) reason: String,
}

/// End of a program, with the ends of its output streams.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Ended {
    pub(crate) end: End,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Whether the keeper got a signal before the end that a service manager or a terminal sends to all processes.
    pub(crate) was_signalled: bool,
    /// Whether the kernel killed a process of the program's cgroup for lack of memory.
    pub(crate) oom_killed: bool,
    /// Why the log of the attempt lacks a part of the output.
    pub(crate) log_lost: Option<String>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    Code(i32),
    Signal(i32),
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        status
            .signal()
            .map_or_else(|| Self::Code(status.code().unwrap_or(-1)), Self::Signal)
    }
}
