//! Adapter to run any program as a prover: inputs in a file, outputs in a file, an exit code.
//!
//! The contract is the same as in push0's demo: `BIN --input-path IN.json --output-path OUT.json`, exit
//! code 0 after the output is written, otherwise the reason on stderr. Each attempt runs in a fresh
//! directory and in its own process group. The whole group is killed when the attempt ends, is stopped or
//! times out. If the adapter itself is killed, its supervisor must end the program: a container or a
//! systemd unit ends both.

mod config;
mod format;
mod process;
mod template;

pub use config::{Config, ExecConfig, ExitCodes, Input};
use push0_domain::{BlockHash, BlockRef, message::FailureClass};
use push0_prover_sdk::{Prove, ProveError, Role, Statement, Verify, Work};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::ExitStatus,
};
use tempfile::TempDir;
use template::Values;
use tokio::{process::Command, task::spawn_blocking};

/// Prover and verifier made of external programs.
#[derive(Clone, Debug)]
pub struct Exec {
    config: ExecConfig,
}

/// The program required by the role is missing from the configuration or from the disk.
#[derive(Debug, thiserror::Error)]
#[error("exec.{key}: {problem}")]
pub struct NoProgram {
    key: &'static str,
    problem: String,
}

impl Exec {
    /// Returns an adapter for the configured programs. Fails if the program for `role` is missing.
    pub fn new(config: &ExecConfig, role: Role) -> Result<Self, NoProgram> {
        let (key, program) = match role {
            Role::Prover => ("program", &config.program),
            Role::Verifier => ("verify_program", &config.verify_program),
        };
        let refused = |problem: String| Err(NoProgram { key, problem });
        if program.as_os_str().is_empty() {
            return refused(format!("needed to run as a {role:?}: expected a program").to_lowercase());
        }
        // A name without a slash is looked up in `PATH` when the program runs.
        if program.components().count() > 1 && !program.is_file() {
            return refused(format!("{} does not exist", program.display()));
        }
        Ok(Self {
            config: config.clone(),
        })
    }

    fn command(&self, program: &Path, args: &[String], values: &Values<'_>) -> Command {
        let mut command = Command::new(program);
        command.args(args.iter().map(|arg| values.fill(arg)));
        // Programs must not see the adapter's own settings, which include credentials.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PUSH0_") {
                command.env_remove(name);
            }
        }
        command.envs(&self.config.env);
        command
    }

    fn folder(&self) -> io::Result<TempDir> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("prover-exec-");
        if self.config.work_dir.as_os_str().is_empty() {
            builder.tempdir()
        } else {
            builder.tempdir_in(&self.config.work_dir)
        }
    }

    /// Classifies how the program ended; `None` if it succeeded.
    fn failure(&self, ended: &process::Ended) -> Option<ProveError> {
        let codes = &self.config.exit_codes;
        let (class, how) = match (ended.status.code(), ended.status.signal()) {
            (Some(0), _) => return None,
            (Some(code), _) if codes.fatal.contains(&code) => (FailureClass::Fatal, exited(ended.status)),
            (Some(code), _) if codes.out_of_memory.contains(&code) => {
                (FailureClass::OutOfMemory, exited(ended.status))
            }
            // This SIGKILL is not the adapter's own, which ends the attempt before the status is read.
            (_, Some(nix::libc::SIGKILL)) => {
                let how = "was killed with SIGKILL, as a kernel out of memory does".to_owned();
                (FailureClass::OutOfMemory, how)
            }
            _ => (FailureClass::Retryable, exited(ended.status)),
        };
        let message = match ended.stderr.as_str() {
            "" => format!("the program {how} and wrote nothing to stderr"),
            stderr => format!("the program {how}: {stderr}"),
        };
        Some(ProveError { class, message })
    }
}

fn exited(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// Returns the values of the placeholders [`template::ABOUT_BLOCK`]. `first` equals
/// `block` except for ranges.
fn about(
    block: &BlockRef,
    first: &BlockRef,
    parent: &BlockHash,
    program_id: Option<&String>,
) -> [String; template::ABOUT_BLOCK.len()] {
    [
        block.number.to_string(),
        block.hash.to_string(),
        first.number.to_string(),
        first.hash.to_string(),
        parent.to_string(),
        program_id.cloned().unwrap_or_default(),
    ]
}

/// Runs blocking file I/O on a thread where blocking is allowed.
async fn on_disk<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ProveError> {
    let done = spawn_blocking(work).await.map_err(io::Error::other);
    done.flatten()
        .map_err(|e| ProveError::retryable(format!("{what}: {e}")))
}

impl Prove for Exec {
    async fn prove(&self, work: Work) -> Result<Vec<Vec<u8>>, ProveError> {
        let (this, format) = (self.clone(), self.config.input);
        let (header, max) = (work.header.clone(), self.config.output_bytes_max);
        let input = format::input(work, format)?;
        let folder = on_disk("input file", move || {
            let folder = this.folder()?;
            std::fs::write(folder.path().join("IN.json"), input)?;
            Ok(folder)
        })
        .await?;
        let (from, to) = (folder.path().join("IN.json"), folder.path().join("OUT.json"));
        let id = &header.id.stage;
        let values = Values {
            files: &[("input", &from), ("output", &to)],
            about: about(
                &id.block,
                &id.first_block(),
                &header.context.parent_hash,
                header.program_id.as_ref(),
            ),
        };
        let command = self.command(&self.config.program, &self.config.args, &values);
        let ended = process::run(command)
            .await
            .map_err(|e| ProveError::retryable(format!("{}: {e}", self.config.program.display())))?;
        if let Some(failure) = self.failure(&ended) {
            return Err(failure);
        }
        let read = on_disk("output file", move || {
            let read = read_at_most(&to, max);
            drop(folder);
            read
        });
        match read.await? {
            Some(output) => format::outputs(header.kind, output),
            None => Err(ProveError::fatal(format!(
                "the output file is larger than {max} bytes (exec.output_bytes_max)"
            ))),
        }
    }
}

/// Reads a file: `None` if it is larger than `max` bytes, empty if there is no such file.
fn read_at_most(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(max + 1).read_to_end(&mut bytes)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(bytes)),
        Err(e) => return Err(e),
    };
    Ok((bytes.len() as u64 <= max).then_some(bytes))
}

impl Verify for Exec {
    async fn verify(&self, statement: Statement, output: Vec<u8>) -> Result<Option<String>, ProveError> {
        let this = self.clone();
        let folder = on_disk("proof file", move || {
            let folder = this.folder()?;
            std::fs::write(folder.path().join("PROOF"), output)?;
            Ok(folder)
        })
        .await?;
        let proof = folder.path().join("PROOF");
        let values = Values {
            files: &[("proof", &proof)],
            about: about(
                &statement.block.block,
                &statement.first_block().block,
                &statement.parent_hash(),
                statement.program_id.as_ref(),
            ),
        };
        let command = self.command(&self.config.verify_program, &self.config.verify_args, &values);
        let ended = process::run(command)
            .await
            .map_err(|e| ProveError::retryable(format!("{}: {e}", self.config.verify_program.display())))?;
        match ended.status.code() {
            Some(0) => Ok(None),
            Some(1) if ended.stderr.is_empty() => {
                Ok(Some("the verifier refused the proof and gave no reason".into()))
            }
            Some(1) => Ok(Some(ended.stderr)),
            _ => Err(ProveError::retryable(format!(
                "the verifier {}: {}",
                exited(ended.status),
                ended.stderr
            ))),
        }
    }
}
