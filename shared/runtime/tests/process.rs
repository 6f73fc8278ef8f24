//! Lifecycle of a process, tested with the example service `idle`.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Returns a command for the example, which cargo builds into a folder beside that of the tests.
fn idle() -> Command {
    let test = std::env::current_exe().expect("the test has a path");
    let folder = test
        .ancestors()
        .nth(2)
        .map(PathBuf::from)
        .expect("tests lie two folders deep");
    let mut command = Command::new(folder.join("examples/idle"));
    command.env_clear().env("PUSH0_TELEMETRY__LOG", "info");
    command
}

fn run(args: &[&str], vars: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = idle().args(args).envs(vars.iter().copied()).output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("the example is built");
    let text = |bytes| String::from_utf8(bytes).expect("output is text");
    (status.code(), text(stdout), text(stderr))
}

/// Longest wait for a line of the log; only a process that hangs takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

struct Running {
    child: Child,
    log: Receiver<String>,
}

impl Running {
    fn start(vars: &[(&str, &str)]) -> Self {
        let mut child = idle()
            .envs(vars.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || {
            stderr
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self { child, log }
    }

    /// Reads the log up to the line that contains `text`.
    fn wait_for(&mut self, text: &str) {
        while !self
            .log
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|e| unreachable!("{e}: {text}"))
            .contains(text)
        {}
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id fits");
        kill(Pid::from_raw(id), signal).expect("the process takes signals");
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) => rest += &line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => unreachable!("the process does not end: {rest}"),
            }
        }
        (self.child.wait().expect("the process ends").code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The process has already ended, unless the test failed.
        let _ = self.child.kill();
    }
}

#[test]
fn the_version_and_a_good_configuration_are_printed() {
    let (code, out, _) = run(&["--version"], &[]);
    assert_eq!(
        (code, out.as_str()),
        (Some(0), concat!("push0-idle ", env!("CARGO_PKG_VERSION"), "\n"))
    );
    let (code, out, err) = run(&["--check-config"], &[]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (Some(0), "push0-idle: configuration ok\n", "")
    );
}

#[test]
fn a_bad_configuration_is_one_line_and_exit_64() {
    for (variable, value, line) in [
        (
            "PUSH0_TELEMETRY__LOG",
            "inof",
            "telemetry.log: found \"inof\", expected a level",
        ),
        ("PUSH0_TELEMETRY__LGO", "info", "telemetry.lgo: unknown key"),
        (
            "PUSH0_TELEMETRY__OTLP_ENDPOINT",
            "nowhere",
            "telemetry.otlp_endpoint: found \"nowhere\"",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "nowhere",
            "OTEL_EXPORTER_OTLP_ENDPOINT: found \"nowhere\", expected a URL such as http://collector:4317 (TLS is not \
             supported) (environment variable)\n",
        ),
        (
            "PUSH0_CONFIG",
            "/nowhere.toml",
            "configuration file /nowhere.toml cannot be read: No such",
        ),
    ] {
        let (code, _, err) = run(&["--check-config"], &[(variable, value)]);
        assert_eq!(code, Some(64), "{err}");
        assert!(err.starts_with(&format!("push0-idle: {line}")), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
        let (code, out, _) = run(&["--check-start"], &[(variable, value)]);
        assert_eq!(code, Some(64), "{out}");
        assert!(out.starts_with(&format!("push0: refused: {line}")), "{out}");
    }
    assert_eq!(run(&["--check-start"], &[]).0, Some(0));
}

#[test]
fn a_signal_stops_the_service_in_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut service = Running::start(&[]);
        service.wait_for("turning");
        service.signal(signal);
        let (code, log) = service.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains(signal.as_str()) && log.contains("stopped"), "{log}");
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let mut service = Running::start(&[("PUSH0_MODE", "stubborn")]);
    service.wait_for("turning");
    service.signal(Signal::SIGTERM);
    service.wait_for("stopping");
    service.signal(Signal::SIGTERM);
    assert_eq!(service.end().0, Some(130));
}

#[test]
fn a_failure_is_logged_once_and_exits_1() {
    let (code, _, err) = run(&[], &[("PUSH0_MODE", "fail")]);
    assert_eq!(code, Some(1));
    assert_eq!(err.matches("nothing to wait for").count(), 1, "{err}");
    let (code, _, err) = run(
        &[],
        &[("PUSH0_MODE", "panic"), ("PUSH0_TELEMETRY__FORMAT", "json")],
    );
    assert_eq!(code, Some(1));
    assert!(
        err.contains("nobody asked") && err.lines().all(|line| line.starts_with('{')),
        "{err}"
    );
}

#[test]
fn an_address_that_is_taken_is_told_and_exits_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
    let address = taken
        .local_addr()
        .expect("a bound socket has an address")
        .to_string();
    let (code, _, err) = run(&[], &[("PUSH0_HTTP__LISTEN", &address)]);
    assert_eq!(code, Some(1));
    assert!(
        err.contains(&format!("cannot listen on {address}: Address already in use")),
        "{err}"
    );
}

#[test]
fn an_absent_receiver_of_traces_is_told_once_and_does_not_delay_the_end() {
    for protocol in ["grpc", "http"] {
        let mut service = Running::start(&[
            ("PUSH0_TELEMETRY__OTLP_ENDPOINT", "http://127.0.0.1:9"),
            ("PUSH0_TELEMETRY__OTLP_PROTOCOL", protocol),
        ]);
        service.wait_for("traces are not received");
        service.signal(Signal::SIGTERM);
        let (code, log) = service.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("traces are not received"), "{log}");
    }
}
