//! `prover-exec __program`: becomes the program, after it has bound itself to its keeper.
//!
//! The death signal and the limits are settings of a process that survive `exec`. Setting them between
//! `fork` and `exec` would be unsafe code.

use crate::report::Rlimits;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

/// Processor time between SIGXCPU at the limit and SIGKILL for a program that goes on.
const CPU_GRACE_SECONDS: u64 = 5;

/// The preparation of a program before its start.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Launch {
    /// The keeper's process id.
    pub(crate) keeper: u32,
    pub(crate) rlimits: Rlimits,
    pub(crate) cgroup: Option<PathBuf>,
}

/// Replaces this process by the program. Stdin is a socket that takes the reason if this fails; it closes
/// without a word when the program has started.
pub(crate) fn run(launch: &str, program: &[OsString]) -> ExitCode {
    let reason = match begin(launch, program) {
        Ok(never) => match never {},
        Err(reason) => reason,
    };
    let told = io::stdin().as_fd().try_clone_to_owned();
    if let Ok(socket) = told {
        // The keeper has gone if it does not listen.
        let _ = UnixStream::from(socket).write_all(reason.to_string().as_bytes());
    }
    ExitCode::FAILURE
}

fn begin(launch: &str, program: &[OsString]) -> io::Result<std::convert::Infallible> {
    let launch: Launch = serde_json::from_str(launch).map_err(io::Error::other)?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    // The keeper may have died before the setting was made.
    if u32::try_from(nix::unistd::getppid().as_raw()) != Ok(launch.keeper) {
        return Err(io::Error::other("its keeper has ended"));
    }
    if let Some(cgroup) = &launch.cgroup {
        // 0 is the writer itself.
        std::fs::write(cgroup.join("cgroup.procs"), "0")?;
    }
    set_limits(launch.rlimits)?;
    let Some((path, args)) = program.split_first() else {
        return Err(io::Error::other("no program"));
    };
    // This copy closes itself on `exec`; stdin is replaced before.
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let error = Command::new(path).args(args).stdin(Stdio::null()).exec();
    let _ = UnixStream::from(socket).write_all(error.to_string().as_bytes());
    std::process::exit(1)
}

fn set_limits(limits: Rlimits) -> io::Result<()> {
    for (resource, limit) in [
        (Resource::RLIMIT_AS, limits.memory_bytes),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
    ] {
        if let Some(limit) = limit {
            setrlimit(resource, limit, limit)?;
        }
    }
    if let Some(limit) = limits.cpu_seconds {
        // The kernel sends SIGKILL at the hard limit, which would look like a lack of memory.
        let (_, hard) = getrlimit(Resource::RLIMIT_CPU)?;
        let later = hard.min(limit.saturating_add(CPU_GRACE_SECONDS));
        setrlimit(Resource::RLIMIT_CPU, limit.min(later), later)?;
    }
    Ok(())
}
