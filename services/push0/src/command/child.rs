//! `push0 __child`: replaces this process by a program that dies with its parent.
//!
//! `push0 up` starts every process through this command. The kernel kills the process when the thread that
//! started it ends, even by SIGKILL. The setting survives `exec`. The parent may die before the setting is
//! made; the process then has another parent and exits.

use crate::failure::Failure;
use clap::Args;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

#[derive(Args, Debug)]
pub(crate) struct ChildArgs {
    /// Process id of the parent.
    #[arg(long)]
    pub(crate) parent: i32,
    /// Program to run, with its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, num_args = 1..)]
    pub(crate) program: Vec<OsString>,
}

pub(crate) fn run(args: &ChildArgs) -> Result<(), Failure> {
    // Other systems have no such setting: there, a SIGKILL of `push0 up` leaves its children running.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    if nix::unistd::getppid().as_raw() != args.parent {
        return Err(Failure::failed("the parent process has ended"));
    }
    let Some((program, rest)) = args.program.split_first() else {
        return Err(Failure::usage("no program"));
    };
    let error = Command::new(program).args(rest).exec();
    Err(Failure::failed(format!(
        "{} does not start: {error}",
        program.display()
    )))
}
