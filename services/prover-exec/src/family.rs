//! The processes below a keeper: everything that its program started, wherever it went.
//!
//! A keeper is a subreaper: a process whose parent ends becomes the keeper's child, also one with a session
//! of its own. A child that the keeper has not reaped keeps its number, so that a signal to a child meets
//! no other process. The adapter is a subreaper as well, for orphans of a killed keeper. Deeper processes are
//! signalled through a `pidfd`, whose process is compared once more.

#[cfg(target_os = "linux")]
pub(crate) use linux::{become_subreaper, kill_children, resume, signal_all};
#[cfg(not(target_os = "linux"))]
pub(crate) use other::{become_subreaper, kill_children, resume, signal_all};

/// A signal to all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// SIGTERM, and SIGCONT for stopped processes.
    Term,
    /// SIGKILL.
    Kill,
    /// SIGCONT.
    Resume,
}

#[cfg(target_os = "linux")]
mod linux {
    use super::Blow;
    use nix::{
        sys::wait::{WaitPidFlag, waitpid},
        unistd::Pid,
    };
    use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    use std::collections::{BTreeMap, BTreeSet};

    pub(crate) fn become_subreaper() -> std::io::Result<()> {
        Ok(nix::sys::prctl::set_child_subreaper(true)?)
    }

    /// Sends a signal to all descendants of this process. `_group` is the program's process group.
    pub(crate) fn signal_all(blow: Blow, _group: Pid) {
        let parents = parents();
        let mut ours = BTreeSet::from([Pid::this().as_raw()]);
        let mut found = Vec::new();
        // A child may have a smaller number than its parent, so the table is read until nothing is added.
        loop {
            let before = found.len();
            for (pid, parent) in &parents {
                if ours.contains(parent) && ours.insert(*pid) {
                    found.push(*pid);
                }
            }
            if found.len() == before {
                break;
            }
        }
        for pid in found {
            signal(pid, blow, &ours);
        }
    }

    /// Kills and reaps the children of this process, except `known`; returns whether there are any. The
    /// children of a killed child are next.
    pub(crate) fn kill_children(known: &BTreeSet<i32>) -> bool {
        let ours = BTreeSet::from([Pid::this().as_raw()]);
        let mut any = false;
        for (pid, parent) in parents() {
            if ours.contains(&parent) && !known.contains(&pid) {
                any = true;
                signal(pid, Blow::Kill, &ours);
                // An error means that the process is reaped already.
                let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
            }
        }
        any
    }

    /// Lets a stopped child of this process go on.
    pub(crate) fn resume(child: i32) {
        signal(child, Blow::Resume, &BTreeSet::from([Pid::this().as_raw()]));
    }

    fn signal(pid: i32, blow: Blow, ours: &BTreeSet<i32>) {
        let Some(id) = rustix::process::Pid::from_raw(pid) else {
            return;
        };
        // An error means that the process has ended.
        let Ok(process) = pidfd_open(id, PidfdFlags::empty()) else {
            return;
        };
        if !parent_of(pid).is_some_and(|parent| ours.contains(&parent)) {
            return;
        }
        let _ = match blow {
            Blow::Term => pidfd_send_signal(&process, Signal::TERM)
                .and_then(|()| pidfd_send_signal(&process, Signal::CONT)),
            Blow::Kill => pidfd_send_signal(&process, Signal::KILL),
            Blow::Resume => pidfd_send_signal(&process, Signal::CONT),
        };
    }

    /// Returns the parent of every process that can be seen.
    fn parents() -> BTreeMap<i32, i32> {
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return BTreeMap::new();
        };
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid| Some((pid, parent_of(pid)?))).collect()
    }

    fn parent_of(pid: i32) -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before the last parenthesis may hold anything.
        let (_, fields) = stat.rsplit_once(") ")?;
        fields.split(' ').nth(1)?.parse().ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use super::Blow;
    use nix::{
        sys::signal::{Signal, killpg},
        unistd::Pid,
    };

    /// There are no subreapers: only the program's process group ends with it.
    pub(crate) fn become_subreaper() -> std::io::Result<()> {
        Ok(())
    }

    pub(crate) fn signal_all(blow: Blow, group: Pid) {
        let signal = match blow {
            Blow::Term => Signal::SIGTERM,
            Blow::Kill => Signal::SIGKILL,
            Blow::Resume => Signal::SIGCONT,
        };
        // An error means that the group is empty already.
        let _ = killpg(group, signal);
    }

    /// Lets a stopped child of this process go on.
    pub(crate) fn resume(child: i32) {
        if child > 0 {
            let _ = nix::sys::signal::kill(Pid::from_raw(child), Signal::SIGCONT);
        }
    }

    pub(crate) fn kill_children(_known: &std::collections::BTreeSet<i32>) -> bool {
        false
    }
}
