//! Configuration of the adapter: the programs, their arguments, and the meaning of their exit codes.

use crate::template;
use push0_bus::NatsConfig;
use push0_domain::payload::PAYLOAD_MAX;
use push0_prover_sdk::{Common, ProverConfig};
use push0_runtime::{HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
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
    /// Arguments of `program`; `{input}` and `{output}` are its files.
    pub args: Vec<String>,
    /// Variables added to the programs' environment, which is the adapter's without `PUSH0_…`.
    pub env: BTreeMap<String, String>,
    /// Content of the input file.
    pub input: Input,
    /// Size limit of an output file, in bytes.
    pub output_bytes_max: u64,
    /// Parent of the attempts' directories, one per attempt. Empty: the system's temporary directory.
    pub work_dir: PathBuf,
    /// Exit codes with a special meaning. Any other code except 0 is a retryable failure.
    pub exit_codes: ExitCodes,
    /// Program that verifies. Exit code 0: the proof is valid; 1: the proof is false; any other: no
    /// verdict. Required to verify.
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

/// Exit codes with a special meaning.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExitCodes {
    /// Codes of permanent failures: no further attempt can succeed.
    pub fatal: Vec<i32>,
    /// Codes for lack of memory: a larger machine may succeed.
    pub out_of_memory: Vec<i32>,
}

impl Default for ExitCodes {
    fn default() -> Self {
        Self {
            fatal: Vec::new(),
            // 128 + 9: a shell's exit code for a command killed by SIGKILL.
            out_of_memory: vec![137],
        }
    }
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
            input: Input::Raw,
            output_bytes_max: PAYLOAD_MAX,
            work_dir: PathBuf::new(),
            exit_codes: ExitCodes::default(),
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
        Ok(())
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

    fn shutdown_grace(&self) -> Duration {
        self.prover.shutdown_grace()
    }

    fn validate(&self) -> Result<(), Invalid> {
        self.prover.validate()?;
        self.exec.validate()
    }
}
