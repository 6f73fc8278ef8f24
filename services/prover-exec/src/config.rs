//! The configuration: which program, how it is called, and what its exit codes mean.

use crate::template;
use push0_bus::NatsConfig;
use push0_domain::payload::PAYLOAD_MAX;
use push0_prover_sdk::{Common, ProverConfig};
use push0_runtime::{HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// The configuration of the adapter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The broker.
    pub nats: NatsConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// Health and metrics.
    pub http: HttpConfig,
    /// What every adapter has; `zkvm` should be set here.
    pub prover: ProverConfig,
    /// The program.
    pub exec: ExecConfig,
}

/// The section `exec`.
///
/// Arguments may contain `{block_number}`, `{block_hash}`, `{parent_hash}` and `{program_id}` (empty
/// if none is pinned), besides the files named below. Of a range these are its last block and the
/// parent of its first, which is `{first_number}` and `{first_hash}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecConfig {
    /// The prover: a path, or a name to look up in `PATH`. Needed to prove.
    pub program: PathBuf,
    /// Its arguments; `{input}` and `{output}` are its files.
    pub args: Vec<String>,
    /// Added to the environment, of which the program gets all but `PUSH0_…`.
    pub env: BTreeMap<String, String>,
    /// What the input file holds.
    pub input: Input,
    /// The largest output file that is read, in bytes.
    pub output_bytes_max: u64,
    /// Where each attempt gets a directory of its own; the system's if empty.
    pub work_dir: PathBuf,
    /// Exit codes with a meaning; any other but 0 is a retryable failure.
    pub exit_codes: ExitCodes,
    /// The verifier: exits 0 if the proof is valid, 1 if it is false, otherwise it could not tell.
    /// Needed to verify.
    pub verify_program: PathBuf,
    /// Its arguments; `{proof}` is the file with the proof.
    pub verify_args: Vec<String>,
}

/// What the input file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// The input's bytes as they are. For a join or range, whose inputs must be JSON: their array.
    #[default]
    Raw,
    /// As `raw`, but each input of a join or range wrapped as `{"data": …, "task_id": 0,
    /// "group_id": BLOCK}`.
    StepProofs,
    /// Always one object: `{"block_number", "block_hash", "first_number", "first_hash",
    /// "parent_hash", "stage", "index", "attempt", "program_id", "inputs": ["0x…"]}`.
    Json,
}

/// Exit codes by what they mean.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExitCodes {
    /// No attempt can succeed.
    pub fatal: Vec<i32>,
    /// A larger machine may do better.
    pub out_of_memory: Vec<i32>,
}

impl Default for ExitCodes {
    fn default() -> Self {
        Self {
            fatal: Vec::new(),
            // What a shell makes of a command that was killed by SIGKILL.
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
