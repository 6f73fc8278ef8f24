//! `push0 sweep`: removes the blobs and messages of one participant, or those about a pipeline without a definition.

use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use clap::{Args, Subcommand};
use push0_bus::{Bus, Pipelines, Stream};
use push0_domain::subject::{self, Kind};
use push0_domain::{Participant, PipelineId, ProverId, ZkvmId};
use serde_json::json;

#[derive(Args, Debug)]
pub(crate) struct SweepArgs {
    #[command(subcommand)]
    of: Of,
}

#[derive(Subcommand, Debug)]
enum Of {
    /// Everything about a pipeline that does not exist.
    Pipeline {
        /// The name of the pipeline.
        name: PipelineId,
    },
    /// The unread results, verdicts and checks of a prover or verifier, after it was banned. Its tasks are done
    /// elsewhere.
    Participant {
        /// The zkVM of the participant.
        zkvm: ZkvmId,
        /// The name of the participant.
        name: ProverId,
    },
}

const KINDS: [(Stream, Kind); 3] = [
    (Stream::Results, Kind::Result),
    (Stream::Results, Kind::Verdict),
    (Stream::Checks, Kind::Check),
];

pub(crate) async fn run(context: &Context, args: &SweepArgs) -> Result<(), Failure> {
    let bus = context.bus().await?;
    let removed = match &args.of {
        Of::Pipeline { name } => pipeline(&bus, name).await?,
        Of::Participant { zkvm, name } => {
            let who = Participant {
                zkvm: zkvm.clone(),
                name: name.clone(),
            };
            let mut removed = 0;
            for (stream, kind) in KINDS {
                removed += bus.purge(stream, &who.all(kind)).await?;
            }
            removed
        }
    };
    if context.json {
        return output::json(&json!({ "removed": removed }));
    }
    output::line(&format!("{removed} message(s) removed"))
}

async fn pipeline(bus: &Bus, name: &PipelineId) -> Result<u64, Failure> {
    if Pipelines::bind(bus).await?.names().await?.contains(name) {
        let refused =
            format!("pipeline `{name}` exists, and its messages are its state: nothing was removed");
        return Err(Failure::failed(refused));
    }
    let mut removed = bus.blobs().remove(&subject::blobs::of_pipeline(name)).await?;
    for (stream, kind) in KINDS {
        removed += bus
            .purge(stream, &subject::participant::of_pipeline(kind, name))
            .await?;
    }
    Ok(removed)
}
