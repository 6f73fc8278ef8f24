//! A child process that ends with its owner, however the owner ends.
//!
//! Dropped: killed and reaped. The test process killed outright: Linux kills the child, by
//! `PR_SET_PDEATHSIG`. That is set by `setpriv` (util-linux) rather than in a `pre_exec` hook, which
//! would be unsafe code. `setpriv` and `sh` replace themselves by the program, so the pid is the
//! program's. Two traps are handled: the signal is sent when the parent *thread* ends, so every child
//! is spawned by one thread that lives as long as the process; and a parent that dies before the
//! signal is armed is noticed by the shell, which compares its parent with the one it was told.
//! Elsewhere than on Linux a killed test leaves its children behind.

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

/// How much of a log is shown when a test fails, in bytes.
const TAIL: u64 = 16 * 1024;

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    /// Where stdout and stderr go, appended.
    pub(crate) log: PathBuf,
}

/// A running program.
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
        // Settings of whoever runs the tests are not the test's.
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

    /// How it ended, if it did.
    pub(crate) fn exited(&self) -> Option<ExitStatus> {
        self.process().try_wait().ok().flatten()
    }

    /// Sends a signal, unless it has ended: its pid may be another's by then.
    pub(crate) fn signal(&self, signal: Signal) {
        let mut process = self.process();
        if let (Ok(None), Ok(pid)) = (process.try_wait(), i32::try_from(self.pid)) {
            let _ = signal::kill(Pid::from_raw(pid), signal);
        }
    }

    /// SIGKILL, and waits until it is gone; also when it is paused.
    pub(crate) fn kill(&self) {
        let mut process = self.process();
        let _ = process.kill();
        let _ = process.wait();
    }

    /// Sends a signal on which it ends, and waits until it has.
    pub(crate) fn end(&self, signal: Signal) {
        self.signal(signal);
        let _ = self.process().wait();
    }

    /// Waits until it ends.
    pub(crate) async fn ended(&self, timeout: Duration) -> Option<ExitStatus> {
        wait::look(timeout, async || self.exited()).await.ok()
    }

    /// All that it wrote.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The end of what it wrote.
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
            // The sender is a static: this ends with the process.
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

/// The program that the environment variable names, or the one that `scripts/setup` installed.
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
