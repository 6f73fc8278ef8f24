//! `push0 proof get N`: fetches the bytes of a proof.

use super::selection::Which;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use clap::Args;
use push0_bus::Bus;
use serde_json::json;
use std::io::IsTerminal as _;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    which: Which,
    /// File to write the proof to; `-` is stdout, even if that is a terminal [default: stdout].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, bus: &Bus, args: &GetArgs) -> Result<(), Failure> {
    let emitted = args.which.find(context, bus).await?;
    let bytes = bus.blobs().resolve(&emitted.proof.payload).await?;
    if args.output.as_ref().is_some_and(|file| file.as_os_str() == "-") {
        return output::raw(&bytes);
    }
    let Some(file) = &args.output else {
        if std::io::stdout().is_terminal() {
            return Err(Failure::usage(
                "a proof is binary: write it to a file with --output FILE",
            ));
        }
        return output::raw(&bytes);
    };
    std::fs::write(file, &bytes)
        .map_err(|error| Failure::failed(format!("{} cannot be written: {error}", file.display())))?;
    if context.json {
        let proof_type = &emitted.proof.proof_type;
        return output::json(&json!({ "file": file, "bytes": bytes.len(), "type": proof_type }));
    }
    output::line(&format!("{}: {} bytes", file.display(), bytes.len()))
}
