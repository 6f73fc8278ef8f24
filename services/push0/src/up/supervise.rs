//! Supervision of one process: start, log lines, restart, stop.

use super::log::Prefix;
use super::plan::Process;
use super::restarts::Restarts;
use crate::table::span;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use push0_runtime::{BoxError, Shutdown, exit};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Time limit for reading the last lines of a dead process: its children may keep the pipes open.
const LAST_LINES: Duration = Duration::from_millis(200);

/// A process to keep running.
#[derive(Clone, Debug)]
pub(crate) struct Supervised {
    pub(crate) process: Process,
    pub(crate) prefix: Prefix,
    /// Whether all services have been ready once. Before that, a refused configuration ends `push0 up`.
    pub(crate) is_up: Arc<AtomicBool>,
    pub(crate) stop: Shutdown,
    /// Asks for a restart of the process.
    pub(crate) restart: Arc<Notify>,
}

/// A process that refuses its configuration.
#[derive(Debug)]
pub(crate) struct Refused {
    name: String,
    zkvm: Option<String>,
}

impl std::error::Error for Refused {}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, zkvm } = self;
        write!(
            f,
            "{name} refuses its configuration: its last lines above say why"
        )?;
        match zkvm {
            Some(zkvm) => write!(f, ". It has the `env` of zkVM {zkvm} in provers.toml"),
            None => Ok(()),
        }
    }
}

impl Supervised {
    /// Runs the process until the stop. Fails only if the process refuses its configuration before `is_up`.
    pub(crate) async fn run(self) -> Result<(), BoxError> {
        let name = &self.process.name;
        let mut restarts = Restarts::new();
        while !self.stop.is_requested() {
            let started = Instant::now();
            let how = match self.once().await {
                Ok(status)
                    if status.code() == Some(i32::from(exit::CONFIG))
                        && !self.is_up.load(Ordering::Relaxed) =>
                {
                    // A restart would not help, so all other processes are stopped too.
                    self.stop.trigger();
                    let zkvm = self.process.zkvm.as_ref().map(ToString::to_string);
                    return Err(Refused {
                        name: name.clone(),
                        zkvm,
                    }
                    .into());
                }
                Ok(status) => describe(status),
                Err(error) => format!("did not start: {error}"),
            };
            if self.stop.is_requested() {
                break;
            }
            let ran = started.elapsed();
            let restart = restarts.died(ran, Instant::now());
            self.prefix.line(&format!(
                "{how} after {}; restarted in {}",
                span(ran),
                span(restart.after)
            ));
            if restart.chronic {
                self.prefix
                    .line("died 10 times within a minute; restarts continue every 5 s");
            }
            tokio::select! {
                () = sleep(restart.after) => {}
                () = self.stop.requested() => {}
            }
        }
        Ok(())
    }

    /// Runs the process once and returns its exit status.
    async fn once(&self) -> io::Result<ExitStatus> {
        let mut child = command(&self.process)?.spawn()?;
        // The id is available until the exit status has been read.
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw);
        let mut pipes = JoinSet::new();
        if let Some(pipe) = child.stdout.take() {
            pipes.spawn(self.prefix.clone().lines_of(pipe));
        }
        if let Some(pipe) = child.stderr.take() {
            pipes.spawn(self.prefix.clone().lines_of(pipe));
        }
        let status = tokio::select! {
            status = child.wait() => status,
            () = self.stop.requested() => self.end(&mut child, group).await,
            () = self.restart.notified() => self.end(&mut child, group).await,
        };
        if let Some(group) = group {
            // Kills what the process left in its group. The programs of `prover-exec` are in groups of their
            // own: their keepers end them when the adapter has gone, with a grace.
            let _ = killpg(group, Signal::SIGKILL);
        }
        let _ = timeout(LAST_LINES, async { while pipes.join_next().await.is_some() {} }).await;
        status
    }

    async fn end(&self, child: &mut Child, group: Option<Pid>) -> io::Result<ExitStatus> {
        if let Some(id) = group {
            // Only the process itself is signalled: it stops its own children.
            let _ = kill(id, Signal::SIGTERM);
        }
        let grace = self.process.grace;
        match timeout(grace, child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.prefix
                    .line(&format!("did not stop within {}, killed", span(grace)));
                child.kill().await?;
                child.wait().await
            }
        }
    }
}

/// Returns the command that starts the process through `push0 __child`, so that it dies with this process.
pub(super) fn command(process: &Process) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["__child", "--parent", &std::process::id().to_string(), "--"]);
    command.arg(&process.program).args(&process.args);
    for (name, _) in std::env::vars_os() {
        // Variables of `push0` are no settings of the services, which refuse unknown settings.
        let foreign = |name: &str| name.starts_with("PUSH0_") && !name.starts_with("PUSH0_TELEMETRY__");
        if name.to_str().is_some_and(foreign) {
            command.env_remove(name);
        }
    }
    command.envs(&process.env);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // With its own process group, Ctrl-C reaches only `push0 up`, which then stops
    // the processes in order.
    command.process_group(0).kill_on_drop(true);
    Ok(command)
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("was killed by {signal}"),
            Err(_) => format!("was killed by signal {number}"),
        },
        (None, None) => format!("ended ({status})"),
    }
}
