//! `push0 proof verify N`: runs the zkVM's own verifier in a separate process.
//!
//! The statement consists of the facts stored by the ingester and the program pinned by the pipeline, never
//! of data that came with the proof.

use super::selection::{Emitted, Which};
use crate::context::Context;
use crate::failure::Failure;
use crate::up::binaries;
use crate::{known, output};
use clap::Args;
use push0_bus::{Bus, Pipelines};
use push0_domain::{BlockRef, PipelineId, message::KnownBlock};
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
    let program = match &args.verifier {
        Some(program) => program.clone(),
        None => binaries::find(&format!("prover-{}", proof.zkvm)).map_err(Failure::failed)?,
    };
    let bytes = bus.blobs().await?.resolve(&proof.payload).await?;
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
    program: PathBuf,
    proof: &[u8],
    [first, last]: [&KnownBlock; 2],
    program_id: Option<&str>,
) -> Result<Result<(), String>, Failure> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(proof)?;
    let mut command = Command::new(&program);
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

/// Reads the verdict: code 0 and `valid` on stdout mean valid, code 1 means invalid with the reason on
/// stdout or stderr. `None` for anything else, which is no verdict.
fn judge(ended: &Output) -> Option<Result<(), String>> {
    let stdout = String::from_utf8_lossy(&ended.stdout);
    match ended.status.code() {
        Some(0) if stdout.lines().any(|line| line.trim() == "valid") => Some(Ok(())),
        Some(1) => {
            let stderr = String::from_utf8_lossy(&ended.stderr);
            let said = if stdout.trim().is_empty() { stderr } else { stdout };
            Some(Err(said.trim().to_owned()))
        }
        _ => None,
    }
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
        assert_eq!(said(0, "valid\n", ""), Some(Ok(())));
        assert_eq!(
            said(1, "wrong parent\n", "noise"),
            Some(Err("wrong parent".into()))
        );
        assert_eq!(said(1, "", "wrong parent\n"), Some(Err("wrong parent".into())));
        assert_eq!(said(0, "invalid\n", ""), None);
        assert_eq!(said(64, "", "usage"), None);
        let killed = Output {
            status: ExitStatus::from_raw(9),
            stdout: b"valid".to_vec(),
            stderr: vec![],
        };
        assert_eq!(judge(&killed), None);
    }
}
