//! A child process that ends with its owner, however the owner ends.
//!
//! A dropped child is killed and reaped. If the test process itself is killed, Linux kills the child through
//! `PR_SET_PDEATHSIG`. `setpriv` (util-linux) sets the option, because a `pre_exec` hook would be unsafe
//! code. `setpriv` and `sh` are replaced by the program with `exec`, so the pid is the program's.
//!
//! The mechanism has two traps. Linux sends the signal when the parent *thread* ends, so one thread that
//! lives as long as the process spawns every child. A parent may die before the signal is armed, so the shell
//! compares its parent's pid with the expected one.
//!
//! On systems other than Linux, a killed test leaves its children behind.

use crate::wait;
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc},
    time::Duration,
};

/// The number of bytes shown from the end of a log when a test fails.
const TAIL: u64 = 16 * 1024;

/// A program with its arguments, environment and log file.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    /// File to which stdout and stderr are appended.
    pub(crate) log: PathBuf,
}

/// A running program. Dropping the value kills and reaps the process.
#[derive(Debug)]
pub(crate) struct Child {
    process: Mutex<std::process::Child>,
    pid: u32,
    log: PathBuf,
}

impl Child {
    pub(crate) fn spawn(spec: &Spec) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(&spec.log)?;
        let mut command = ending_with_us(&spec.program);
        command
            .args(&spec.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // The test's configuration must not depend on `PUSH0_` variables of the developer's shell.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PUSH0_") {
                command.env_remove(name);
            }
        }
        command.envs(spec.env.iter().map(|(k, v)| (k, v)));
        let process = spawn_from_lasting_thread(command)?;
        Ok(Self {
            pid: process.id(),
            process: Mutex::new(process),
            log: spec.log.clone(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the exit status, or `None` while the process runs.
    pub(crate) fn exited(&self) -> Option<ExitStatus> {
        self.process().try_wait().ok().flatten()
    }

    /// Sends a signal, unless the process has ended: another process may have its pid by then.
    pub(crate) fn signal(&self, signal: Signal) {
        let mut process = self.process();
        if let (Ok(None), Ok(pid)) = (process.try_wait(), i32::try_from(self.pid)) {
            let _ = signal::kill(Pid::from_raw(pid), signal);
        }
    }

    /// Sends SIGKILL and waits until the process is gone. Works on a paused process too.
    pub(crate) fn kill(&self) {
        let mut process = self.process();
        let _ = process.kill();
        let _ = process.wait();
    }

    /// Sends a signal that ends the process, and waits for the exit.
    pub(crate) fn end(&self, signal: Signal) {
        self.signal(signal);
        let _ = self.process().wait();
    }

    /// Waits for the exit; returns `None` if the process still runs after `timeout`.
    pub(crate) async fn ended(&self, timeout: Duration) -> Option<ExitStatus> {
        wait::look(timeout, async || self.exited()).await.ok()
    }

    /// Returns the complete output of the process.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns the last [`TAIL`] bytes of the output.
    pub(crate) fn tail(&self) -> String {
        tail(&self.log).unwrap_or_default()
    }

    fn process(&self) -> MutexGuard<'_, std::process::Child> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn ending_with_us(program: &Path) -> Command {
    if !cfg!(target_os = "linux") {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "/bin/sh", "-c"])
        .arg(r#"[ "$PPID" = "$0" ] || exit 1; exec "$@""#)
        .arg(std::process::id().to_string())
        .arg(program);
    command
}

type Job = (Command, mpsc::SyncSender<io::Result<std::process::Child>>);

fn spawn_from_lasting_thread(command: Command) -> io::Result<std::process::Child> {
    static SPAWNER: LazyLock<Mutex<mpsc::Sender<Job>>> = LazyLock::new(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            // The sender is a static and is never dropped, so the loop runs until the process ends.
            for (mut command, answer) in queue {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(jobs)
    });
    let (answer, spawned) = mpsc::sync_channel(1);
    let gone = |_| io::Error::other("the thread that spawns children is gone");
    SPAWNER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .map_err(|_| gone(()))?;
    spawned.recv().map_err(|_| gone(()))?
}

/// Returns the path of a program: the value of the environment variable, or else the copy installed
/// by `scripts/setup`.
pub(crate) fn tool(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable).filter(|p| !p.is_empty()) {
        let path = PathBuf::from(path);
        assert!(
            path.is_file(),
            "{variable}={} is not there: run scripts/setup",
            path.display()
        );
        return path;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed = here.ancestors().map(|root| root.join(".tools/bin").join(name));
    installed
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!("{name} is neither in .tools/bin nor named by {variable}: run scripts/setup")
        })
}
