//! `push0 repair`: shows stored state that cannot be read, and mends it.

use crate::context::{Context, known};
use crate::damage::{self, Damage};
use crate::failure::Failure;
use crate::output;
use clap::Args;
use push0_bus::now;
use push0_domain::PipelineId;
use serde_json::json;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub(crate) struct RepairArgs {
    /// Look at the state of this pipeline only.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<PipelineId>,
    /// Mend what is shown, after the removed bytes are written to a file.
    #[arg(long)]
    apply: bool,
    /// File for the removed bytes, which must not exist [default: ./push0-repair-SECONDS.jsonl].
    #[arg(long, value_name = "FILE", requires = "apply")]
    keep: Option<PathBuf>,
}

pub(crate) async fn run(context: &Context, args: &RepairArgs) -> Result<(), Failure> {
    let bus = context.bus().await?;
    if let Some(name) = &args.pipeline {
        known(&bus, name).await?;
    }
    let found = damage::find(&bus, args.pipeline.as_ref()).await?;
    let mut kept = None;
    if args.apply && !found.is_empty() {
        let named = || format!("push0-repair-{}.jsonl", now().0 / 1_000_000).into();
        let file = args.keep.clone().unwrap_or_else(named);
        keep(&file, &found)?;
        for damage in &found {
            damage.mend(&bus).await?;
        }
        kept = Some(file);
    }
    if context.json {
        let damaged: Vec<_> = found.iter().map(Damage::to_json).collect();
        output::json(&json!({ "damaged": damaged, "mended": kept.is_some(), "kept": kept }))?;
    } else if found.is_empty() {
        output::line("all stored state can be read")?;
    } else {
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        output::line(&texts.join("\n"))?;
        let by_hand = found.iter().filter(|damage| damage.is_by_hand()).count();
        output::line(&match &kept {
            Some(file) if by_hand > 0 => format!(
                "mended, except {by_hand} by hand; the removed bytes are in {}",
                file.display()
            ),
            Some(file) => format!("mended; the removed bytes are in {}", file.display()),
            None => "nothing was changed: `push0 repair --apply` mends the above".to_owned(),
        })?;
    }
    if found.iter().any(|damage| kept.is_none() || damage.is_by_hand()) {
        return Err(Failure::Told);
    }
    Ok(())
}

/// Writes what a repair removes as lines of JSON. The file is private: definitions hold keys of RPC providers.
fn keep(path: &Path, found: &[Damage]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    for damage in found {
        writeln!(file, "{}", damage.to_json()).map_err(failed)?;
    }
    file.sync_all().map_err(failed)
}
