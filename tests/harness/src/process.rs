//! push0's own programs as processes, started from the test's own build.

use crate::{
    child::{Child, Spec},
    wait_for,
};
use nix::sys::signal::Signal;
use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tempfile::TempDir;

/// Log line of the runtime when its health and metrics server listens.
const HTTP_LINE: &str = "listening for probes and scrapes";
/// Longest time for a program to log [`HTTP_LINE`] on a busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// A push0 program before its start.
#[derive(Clone, Debug)]
pub struct ProcessBuilder {
    program: String,
    label: String,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    config: Option<String>,
}

impl ProcessBuilder {
    /// Sets the name for failures and lookups, instead of the program's name. Programs that run twice
    /// need different labels.
    #[must_use]
    pub fn label(mut self, label: &str) -> Self {
        label.clone_into(&mut self.label);
        self
    }

    /// Adds a command line argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets an environment variable, such as `PUSH0_NATS__URL`. The last value set for a name wins.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((name.into(), value.to_string()));
        self
    }

    /// Sets several environment variables.
    #[must_use]
    pub fn envs<K: AsRef<str>, V: ToString>(self, pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        pairs
            .into_iter()
            .fold(self, |this, (name, value)| this.env(name.as_ref(), value))
    }

    /// Sets a variable unless it is already set.
    #[must_use]
    pub(crate) fn env_default(mut self, name: &str, value: &str) -> Self {
        self.env.insert(0, (name.into(), value.into()));
        self
    }

    /// Writes this text to a configuration file and passes the file as `--config`.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.into());
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.label
    }

    pub(crate) fn program_name(&self) -> &str {
        &self.program
    }

    /// Returns the value of an environment variable, if set.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let set = self.env.iter().rfind(|(set, _)| set == name);
        set.map(|(_, value)| value.as_str())
    }

    pub(crate) fn has_arg(&self, arg: &str) -> bool {
        self.args.iter().any(|given| given == arg)
    }

    /// Starts the process and returns at once; [`Process::ready`] waits until the process is ready.
    ///
    /// # Panics
    /// The program was not built, or cannot be started.
    pub fn start(self) -> Process {
        let folder = TempDir::new().expect("a temporary directory");
        let mut args = Vec::new();
        if let Some(toml) = &self.config {
            let path = folder.path().join("config.toml");
            std::fs::write(&path, toml).expect("the configuration file is written");
            args.extend(["--config".into(), path.into()]);
        }
        args.extend(self.args);
        let spec = Spec {
            program: built(&self.program),
            args,
            env: self.env,
            log: folder.path().join("log"),
        };
        Process {
            child: spawn(&spec),
            spec,
            label: self.label,
            program: self.program,
            started_at: 0,
            peak_kib: AtomicU64::new(0),
            _folder: folder,
        }
    }
}

/// A running push0 program. Dropping the value kills the process, and prints the end of its log if the
/// test is panicking.
#[derive(Debug)]
pub struct Process {
    child: Child,
    spec: Spec,
    label: String,
    program: String,
    /// Peak resident memory over all runs so far, in KiB, as of the last sample.
    peak_kib: AtomicU64,
    /// Byte offset in the log at which the present run begins.
    started_at: usize,
    _folder: TempDir,
}

impl Process {
    /// Returns a builder for the program of this name: `ingester`, `dispatcher`, `prover-mock`, `push0`, ….
    pub fn program(name: &str) -> ProcessBuilder {
        ProcessBuilder {
            program: name.into(),
            label: name.into(),
            args: Vec::new(),
            env: Vec::new(),
            config: None,
        }
    }

    /// Returns the path of the program of this name, for a test that starts the program by itself.
    pub fn path(name: &str) -> PathBuf {
        built(name)
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Returns the name used in failures and lookups.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns the name of the program.
    pub fn program_name(&self) -> &str {
        &self.program
    }

    /// Returns the peak resident memory over all runs, in megabytes (2^20 bytes). A run that ended by itself
    /// counts only up to its last sample.
    pub fn peak_rss_mb(&self) -> f64 {
        // Another process may have the pid of an ended one.
        let path = self.is_running().then(|| format!("/proc/{}/status", self.pid()));
        let status = path
            .and_then(|path| std::fs::read_to_string(path).ok())
            .unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.split_whitespace().next()?.parse().ok());
        let before = self.peak_kib.fetch_max(peak.unwrap_or(0), Ordering::Relaxed);
        before.max(peak.unwrap_or(0)) as f64 / 1024.0
    }

    /// Returns whether the process has not ended.
    pub fn is_running(&self) -> bool {
        self.child.exited().is_none()
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub fn kill(&self) {
        self.peak_rss_mb();
        self.child.kill();
    }

    /// Sends SIGTERM, on which the process should finish or hand back its work, and end.
    pub fn terminate(&self) {
        self.peak_rss_mb();
        self.child.signal(Signal::SIGTERM);
    }

    /// Sends SIGSTOP: the process stays alive and does nothing.
    pub fn pause(&self) {
        self.child.signal(Signal::SIGSTOP);
    }

    /// Sends SIGCONT to a paused process.
    pub fn resume(&self) {
        self.child.signal(Signal::SIGCONT);
    }

    /// Kills a running process and starts it again with the same arguments. The log continues.
    pub fn restart(&mut self) {
        self.kill();
        self.started_at = self.log().len();
        self.child = spawn(&self.spec);
    }

    /// Waits until the process ends by itself.
    ///
    /// # Panics
    /// The process still runs after `timeout`.
    pub async fn wait_exit(&self, timeout: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.label);
        wait_for(&what, timeout, async || self.child.exited().ok_or("it runs")).await
    }

    /// Returns the complete output of the process, stdout and stderr.
    pub fn log(&self) -> String {
        self.child.log()
    }

    /// Returns the address of the health and metrics server, or `None` until the log names the address.
    pub fn http_address(&self) -> Option<SocketAddr> {
        let log = self.log();
        // A restarted process listens on another port, and another process may have the old port by now.
        let line = log
            .get(self.started_at..)?
            .lines()
            .rfind(|line| line.contains(HTTP_LINE))?;
        let plain = without_colours(line);
        plain.split(['=', '"', ' ']).find_map(|word| word.parse().ok())
    }

    /// Waits until `/health/ready` answers 200.
    ///
    /// # Panics
    /// The process is not ready within `timeout`, or the program ended.
    pub async fn ready(&self, timeout: Duration) {
        let what = format!("readiness of {}", self.label);
        wait_for(&what, timeout, async || {
            assert!(self.is_running(), "{} ended before it was ready", self.label);
            let address = self.http_address().ok_or("no address in its log".to_owned())?;
            let (status, body) = get(&format!("http://{address}/health/ready"))
                .await
                .map_err(|e| e.to_string())?;
            if status == 200 { Ok(()) } else { Err(body) }
        })
        .await;
    }

    /// Waits until `/health/ready` answers 503 with `reason` in its body.
    ///
    /// # Panics
    /// The process does not say so within `timeout`, or the program ended.
    pub async fn not_ready(&self, reason: &str, timeout: Duration) {
        let what = format!("{} to be not ready: {reason}", self.label);
        wait_for(&what, timeout, async || {
            assert!(self.is_running(), "{} ended", self.label);
            let address = self.http_address().ok_or("no address in its log".to_owned())?;
            match get(&format!("http://{address}/health/ready")).await {
                Ok((503, body)) if body.contains(reason) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Returns the text of `/metrics`, as soon as metrics are served.
    ///
    /// # Panics
    /// The metrics are not served.
    pub async fn metrics(&self) -> String {
        let what = format!("the metrics of {}", self.label);
        let address = wait_for(&what, STARTS_WITHIN, async || {
            assert!(self.is_running(), "{} ended before it served any", self.label);
            self.http_address().ok_or("no address in its log")
        })
        .await;
        match get(&format!("http://{address}/metrics")).await {
            Ok((200, text)) => text,
            other => panic!("metrics of {}: {other:?}", self.label),
        }
    }

    /// Returns whether a metric whose line begins with `metric` is 1; `false` if the process does not answer.
    pub(crate) async fn says_one(&self, metric: &str) -> bool {
        let Some(address) = self.http_address().filter(|_| self.is_running()) else {
            return false;
        };
        let answer = get(&format!("http://{address}/metrics")).await;
        let text = answer.map(|(_, text)| text).unwrap_or_default();
        text.lines()
            .any(|line| line.starts_with(metric) && line.ends_with(" 1"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.child.exited();
        self.child.kill();
        if std::thread::panicking() {
            let state = ended.map_or("was running".into(), |status| format!("had ended: {status}"));
            eprintln!("--- {} {state}; its log ends:\n{}", self.label, self.child.tail());
        }
    }
}

fn spawn(spec: &Spec) -> Child {
    Child::spawn(spec).unwrap_or_else(|e| panic!("{}: {e}", spec.program.display()))
}

async fn get(url: &str) -> Result<(u16, String), reqwest::Error> {
    let response = reqwest::Client::new()
        .get(url)
        .timeout(Duration::from_secs(2))
        .send()
        .await?;
    Ok((response.status().as_u16(), response.text().await?))
}

/// Returns the program of this name from the same build as this test: `target/PROFILE/deps/TEST-…` and
/// `target/PROFILE/NAME`.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folders = test.ancestors().skip(1).take(3);
    let found = folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        let profile = test.ancestors().nth(2).map(Path::display);
        panic!(
            "{name} is not built in {}: run cargo build --release --bins",
            profile.map_or("the target directory".into(), |p| p.to_string())
        )
    })
}

fn without_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, escape)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = escape.split_once('m').map_or("", |(_, after)| after);
    }
    plain + rest
}
