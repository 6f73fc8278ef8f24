//! Configuration of the adapter: the programs, their arguments, and the meaning of their exit codes.

use crate::{
    classes::{Classes, ExitCodes, Patterns},
    template,
};
use push0_bus::NatsConfig;
use push0_domain::payload::PAYLOAD_MAX;
use push0_prover_sdk::{Common, ProverConfig};
use push0_runtime::{BoxError, HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Configuration of the exec adapter, one field per section.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Connection to the broker.
    pub nats: NatsConfig,
    /// Log and trace settings.
    pub telemetry: TelemetryConfig,
    /// Address of the health and metrics endpoints.
    pub http: HttpConfig,
    /// Settings shared by all adapters. `zkvm` should be set here: the default is `exec`.
    pub prover: ProverConfig,
    /// Programs to run, and how.
    pub exec: ExecConfig,
}

/// The section `exec`.
///
/// Arguments may contain the placeholders `{block_number}`, `{block_hash}`, `{parent_hash}` and
/// `{program_id}` (empty if none is pinned), and the files named below. For a range, the block is its last
/// one and the parent hash is that of its first block, which is `{first_number}` and `{first_hash}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecConfig {
    /// Proving program: a path, or a name to look up in `PATH`. Required to prove.
    pub program: PathBuf,
    /// Arguments of `program`; `{input}` and `{output}` are its files. Other files need absolute paths.
    pub args: Vec<String>,
    /// Variables set for the programs, beside a few that they inherit: `PATH`, `HOME` and the like.
    pub env: BTreeMap<String, String>,
    /// Names of further variables that the programs inherit from the adapter.
    pub inherit: Vec<String>,
    /// Content of the input file.
    pub input: Input,
    /// Size limit of an output file, in bytes.
    pub output_bytes_max: u64,
    /// Parent of the attempts' directories, one per attempt: working directory and `TMPDIR` of the program. Empty: the
    /// system's temporary directory.
    pub work_dir: PathBuf,
    /// How long a program that was told to end (SIGTERM) may take before it is killed (SIGKILL), with
    /// everything that it started. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// Exit codes with a special meaning. They are asked before `patterns`. Any other code except 0 is a
    /// retryable failure.
    pub exit_codes: ExitCodes,
    /// Regular expressions on the output of a program that failed, by the class that they mean.
    pub patterns: Patterns,
    /// Directory for the whole output of attempts, one file each. Empty: `prover-exec-logs-UID` in the
    /// system's directory for temporary files.
    pub log_dir: PathBuf,
    /// Size limit of an attempt's log, in bytes; of a longer output, the end is kept. 0 keeps no logs.
    pub log_bytes_each: u64,
    /// Size limit of all logs in `log_dir`; the oldest are removed first.
    pub log_bytes_total: u64,
    /// Limits for each program.
    pub limits: Limits,
    /// Program that verifies. Exit code 0: the proof is valid. Exit code 65 with the line `push0: invalid:
    /// REASON` on stdout: the proof is false. Anything else: no verdict. Required to verify.
    pub verify_program: PathBuf,
    /// Arguments of `verify_program`; `{proof}` is the proof's file.
    pub verify_args: Vec<String>,
}

/// Content of the input file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// The input's bytes, unchanged. For a join or range, a JSON array of the inputs, which must be JSON.
    #[default]
    Raw,
    /// Same as `raw`, but each input of a join or range is wrapped as `{"data": …,
    /// "task_id": 0, "group_id": BLOCK}`.
    StepProofs,
    /// Always one object: `{"block_number", "block_hash", "first_number", "first_hash", "parent_hash",
    /// "stage", "index", "attempt", "program_id", "inputs": ["0x…"]}`.
    Json,
}

/// Limits for each program and all that it starts. 0, the default, means no limit. The time limit is the
/// stage's `timeout`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory, in bytes. In a cgroup, the memory of all processes together; otherwise the address space of
    /// each process.
    pub memory_bytes: u64,
    /// Processors, in thousandths. Needs a cgroup.
    pub cpu_millis: u64,
    /// Seconds of processor time of each process.
    pub cpu_seconds: u64,
    /// Size of each file that the program writes, in bytes.
    pub file_bytes: u64,
    /// A writable directory of cgroup v2 under which each program gets a cgroup of its own. Empty: limits
    /// are those of `setrlimit`.
    pub cgroup: PathBuf,
}

fn list(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

impl Default for ExecConfig {
    fn default() -> Self {
        Self {
            program: PathBuf::new(),
            args: list(&["--input-path", "{input}", "--output-path", "{output}"]),
            env: BTreeMap::new(),
            inherit: Vec::new(),
            input: Input::Raw,
            output_bytes_max: PAYLOAD_MAX,
            work_dir: PathBuf::new(),
            grace: Duration::from_secs(5),
            exit_codes: ExitCodes::default(),
            patterns: Patterns::default(),
            log_dir: PathBuf::new(),
            log_bytes_each: 1 << 20,
            log_bytes_total: 256 << 20,
            limits: Limits::default(),
            verify_program: PathBuf::new(),
            verify_args: list(&[
                "--proof",
                "{proof}",
                "--block-number",
                "{block_number}",
                "--block-hash",
                "{block_hash}",
                "--parent-hash",
                "{parent_hash}",
            ]),
        }
    }
}

/// Longest grace of a program. The next attempt waits for it.
const GRACE_MAX: Duration = Duration::from_secs(600);

impl ExecConfig {
    fn validate(&self) -> Result<(), Invalid> {
        for (key, args, files) in [
            ("args", &self.args, &["input", "output"][..]),
            ("verify_args", &self.verify_args, &["proof"][..]),
        ] {
            for (index, arg) in args.iter().enumerate() {
                if let Some(name) = template::unknown(arg, files) {
                    let known = [files, &template::ABOUT_BLOCK[..]].concat().join("}, {");
                    let expected = format!("{{{known}}} as placeholders, not {{{name}}}");
                    return Err(Invalid::new(format!("exec.{key}[{index}]"), expected));
                }
            }
        }
        if self.output_bytes_max == 0 || self.output_bytes_max > PAYLOAD_MAX {
            let expected = format!("a number from 1 to {PAYLOAD_MAX}");
            return Err(Invalid::new("exec.output_bytes_max", expected));
        }
        if let Some(own) = self.inherit.iter().position(|name| name.starts_with("PUSH0_")) {
            let expected = "a name without PUSH0_: the adapter's own settings include credentials";
            return Err(Invalid::new(format!("exec.inherit[{own}]"), expected));
        }
        if self.grace > GRACE_MAX {
            return Err(Invalid::new("exec.grace", format!("at most {GRACE_MAX:?}")));
        }
        Classes::new(&self.patterns)
            .map(drop)
            .map_err(|wrong| Invalid::new(wrong.key, wrong.expected))
    }
}

impl From<&Config> for Common {
    fn from(config: &Config) -> Self {
        Self {
            nats: config.nats.clone(),
            prover: config.prover.clone(),
        }
    }
}

impl HasRuntimeConfig for Config {
    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn http(&self) -> &HttpConfig {
        &self.http
    }

    fn check_files(&self) -> Result<(), BoxError> {
        Common::from(self).check_files()
    }

    fn shutdown_grace(&self) -> Duration {
        self.prover.shutdown_grace()
    }

    fn validate(&self) -> Result<(), Invalid> {
        self.prover.validate()?;
        self.exec.validate()
    }
}
