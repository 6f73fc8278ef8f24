//! `push0 proof verify N`: runs the zkVM's own verifier in a separate process.
//!
//! The statement consists of the facts stored by the ingester and the program pinned by the pipeline, never
//! of data that came with the proof.

use super::selection::{Emitted, Which};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::up::binaries;
use crate::up::provers::{Provers, ProversArg};
use clap::Args;
use push0_bus::{Bus, Pipelines};
use push0_domain::{BlockRef, PipelineId, message::KnownBlock, verdict};
use push0_operate::known;
use serde_json::json;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use tokio::process::Command;

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    which: Which,
    /// Program that verifies [default: the prover adapter of the proof's zkVM, beside push0].
    #[arg(long, value_name = "PATH")]
    verifier: Option<PathBuf>,
    /// A file with prover settings per zkVM, which names the adapter [default: provers.toml beside DIR, if
    /// present].
    #[arg(long, value_name = "FILE")]
    provers: Vec<ProversArg>,
}

pub(super) async fn run(context: &Context, bus: &Bus, args: &VerifyArgs) -> Result<(), Failure> {
    let emitted = args.which.find(context, bus).await?;
    let Emitted {
        pipeline,
        record,
        proof,
    } = &emitted;
    let block = record.emission.last;
    let known = observed(bus, pipeline, &block).await?;
    let first = observed(bus, pipeline, &record.emission.first).await?;
    let definition = Pipelines::bind(bus)
        .await?
        .revision(pipeline, known.revision)
        .await?;
    let pinned = definition
        .as_ref()
        .and_then(|p| p.proof(&proof.proof_type))
        .and_then(|spec| spec.program_id.clone());
    let provers = Provers::load(&args.provers, &context.dir)?;
    let adapter = provers.of(&proof.zkvm);
    let program = match &args.verifier {
        Some(program) => program.clone(),
        None => binaries::find(&adapter.program()).map_err(Failure::failed)?,
    };
    let mut program = Command::new(program);
    program.envs(&adapter.env);
    let bytes = bus.blobs().resolve(&proof.payload).await?;
    let verdict = verify(program, &bytes, [&first, &known], pinned.as_deref()).await?;
    if context.json {
        let valid = verdict.is_ok();
        output::json(
            &json!({ "block": block, "type": proof.proof_type, "valid": valid, "reason": verdict.err() }),
        )?;
        return if valid { Ok(()) } else { Err(Failure::Told) };
    }
    match verdict {
        Ok(()) => output::line(&format!("block {block}: the {} proof is valid", proof.proof_type)),
        Err(reason) => Err(Failure::failed(format!(
            "block {block}: the proof is not valid: {reason}"
        ))),
    }
}

async fn observed(bus: &Bus, pipeline: &PipelineId, block: &BlockRef) -> Result<KnownBlock, Failure> {
    known::of_block(bus, pipeline, block).await?.ok_or_else(|| {
        Failure::failed(format!(
            "the ingester's facts about block {block} have expired: there is nothing to verify the proof against"
        ))
    })
}

/// Returns the verifier's verdict on the blocks from the first to the last, or an error if
/// the program gave none.
async fn verify(
    mut command: Command,
    proof: &[u8],
    [first, last]: [&KnownBlock; 2],
    program_id: Option<&str>,
) -> Result<Result<(), String>, Failure> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(proof)?;
    let program = PathBuf::from(command.as_std().get_program());
    command.arg("verify-file").arg("--proof").arg(file.path());
    command.args(["--block-number", &last.block.number.to_string()]);
    command.args(["--block-hash", &last.block.hash.to_string()]);
    command.args(["--parent-hash", &first.parent_hash.to_string()]);
    if first.block != last.block {
        command.args(["--first-number", &first.block.number.to_string()]);
        command.args(["--first-hash", &first.block.hash.to_string()]);
    }
    if let Some(id) = program_id {
        command.args(["--program-id", id]);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = command.output().await;
    let ended =
        ended.map_err(|error| Failure::failed(format!("{} does not start: {error}", program.display())))?;
    judge(&ended).ok_or_else(|| {
        let said = String::from_utf8_lossy(&ended.stderr);
        Failure::failed(format!(
            "{} gave no verdict ({}): {}",
            program.display(),
            ended.status,
            said.trim()
        ))
    })
}

/// Reads the verdict; `None` if there is none. Unlike a program of the operator's, an adapter always says a word.
fn judge(ended: &Output) -> Option<Result<(), String>> {
    let stdout = String::from_utf8_lossy(&ended.stdout);
    let has_word = stdout.lines().any(|line| line.trim() == verdict::VALID);
    verdict::of_program(ended.status.code(), &stdout).filter(|verdict| verdict.is_err() || has_word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    #[test]
    fn only_a_clear_word_is_a_verdict() {
        let said = |code: i32, out: &str, err: &str| {
            judge(&Output {
                status: ExitStatus::from_raw(code << 8),
                stdout: out.into(),
                stderr: err.into(),
            })
        };
        assert_eq!(said(0, "push0: valid\n", ""), Some(Ok(())));
        assert_eq!(
            said(65, "push0: invalid: wrong parent\n", "noise"),
            Some(Err("wrong parent".into()))
        );
        assert_eq!(said(0, "", ""), None);
        assert_eq!(said(1, "push0: invalid: no", ""), None);
        assert_eq!(said(64, "", "usage"), None);
        let killed = Output {
            status: ExitStatus::from_raw(9),
            stdout: b"push0: valid".to_vec(),
            stderr: vec![],
        };
        assert_eq!(judge(&killed), None);
    }
}
