//! `push0 block N`: shows everything known about one block.

use crate::account;
use crate::block_arg::BlockArg;
use crate::context::Context;
use crate::explain::{Explained, explain};
use crate::failure::Failure;
use crate::options::Of;
use crate::record::{self, Record, RecordJson};
use crate::records;
use crate::work_in_flight::{self, HeldTask, Waiting};
use crate::{output, table, times};
use clap::Args;
use push0_bus::{Bus, now};
use push0_domain::message::{Dead, Emission, EmissionOutcome, EndReason, KnownBlock};
use push0_domain::{PipelineId, plain::one_line};
use push0_operate::{known, letters};
use serde::Serialize;
use std::time::Duration;

#[derive(Args, Debug)]
pub(crate) struct BlockArgs {
    #[command(flatten)]
    of: Of,
    /// Number of the block, or 0x and the beginning of its hash.
    #[arg(value_name = "BLOCK")]
    block: BlockArg,
}

#[derive(Serialize)]
struct Found<'a> {
    pipeline: &'a PipelineId,
    number: u64,
    /// Facts stored by the ingester; several after a reorg.
    known: Vec<KnownBlock>,
    record: Option<RecordJson<'a>>,
    queued: bool,
    waiting: Vec<Waiting>,
    held: Vec<HeldTask>,
    dead_letters: Vec<String>,
    /// The reason why the block waits; `None` once it has a record.
    #[serde(flatten)]
    explained: Option<Explained>,
}

pub(crate) async fn run(context: &Context, args: &BlockArgs) -> Result<(), Failure> {
    let bus = context.bus().await?;
    let pipeline = context.pipeline(&bus, &args.of).await?;
    let number = args.block.number(&bus, &pipeline).await?;
    let known = known::of_number(&bus, &pipeline, number).await?;
    let record = records::of_number(&bus, &pipeline, number).await?;
    let mut waiting = Vec::new();
    for block in &known {
        waiting.extend(work_in_flight::waiting(&bus, &pipeline, block.block.key()).await?);
    }
    waiting.extend(work_in_flight::waiting_in_ranges(&bus, &pipeline, number).await?);
    let queued = record.is_none() && work_in_flight::is_queued(&bus, &pipeline, number).await?;
    let held = work_in_flight::held(&bus, &pipeline, number).await?;
    let explained = match record {
        Some(_) => None,
        None => Some(explain(&bus, &pipeline, number, queued, (&waiting, &held)).await?),
    };
    let found = Found {
        pipeline: &pipeline,
        number,
        known,
        record: record.as_ref().map(RecordJson::from),
        queued,
        waiting,
        held,
        dead_letters: dead_letters(&bus, &pipeline, number).await?,
        explained,
    };
    if context.json {
        return output::json(&found);
    }
    if found.known.is_empty() && record.is_none() && !found.queued {
        return Err(Failure::failed(format!(
            "block {number} is not known to {pipeline}: the ingester never saw it, or its facts have expired. `push0 \
             status` shows how far the ingester is"
        )));
    }
    output::line(&render(&found, record.as_ref()))
}

async fn dead_letters(bus: &Bus, pipeline: &PipelineId, number: u64) -> Result<Vec<String>, Failure> {
    let mut ids = Vec::new();
    for place in letters::list(bus, Some(pipeline)).await? {
        let Some(kept) = letters::read(bus, &place).await? else {
            continue;
        };
        if let Ok(letter) = kept.body
            && let Dead::Task { retry, .. } = &letter.what
            && retry.stage.numbers().contains(&number)
        {
            ids.push(letter.id);
        }
    }
    Ok(ids)
}

fn render(found: &Found<'_>, record: Option<&Record>) -> String {
    let mut lines = vec![format!("block {} of {}", found.number, found.pipeline)];
    if let Some(explained) = &found.explained {
        lines.push(explained.waits_for.clone());
        let stages = explained.stages.iter();
        lines.extend(stages.map(|stages| format!("  stages        {stages}")));
    }
    for KnownBlock {
        block,
        parent_hash,
        revision,
        observed_at,
        facts,
        ..
    } in &found.known
    {
        lines.push(format!("  hash          {}", block.hash));
        lines.push(format!("  parent        {parent_hash}"));
        lines.push(format!(
            "  observed      {}",
            times::with_age(*observed_at, now())
        ));
        lines.push(format!(
            "  transactions  {}, gas {}",
            facts.transactions, facts.gas_used
        ));
        lines.push(format!("  revision      {revision} of the pipeline"));
    }
    match record {
        Some(record) => lines.extend(emitted(record)),
        None => lines.extend(in_flight(found)),
    }
    for id in &found.dead_letters {
        lines.push(format!("  dead letter   {id} (`push0 dead show {id}`)"));
    }
    lines.join("\n")
}

fn emitted(record: &Record) -> Vec<String> {
    let mut lines = vec![format!(
        "  outcome       {}",
        push0_operate::outcome(&record.emission.outcome)
    )];
    let Emission { first, last, .. } = &record.emission;
    if first != last {
        lines.push(format!("  range         {}", record::numbers(first, last)));
    }
    match &record.emission.outcome {
        EmissionOutcome::Proved(proofs) => {
            for proof in proofs {
                let verified = proof.verifier.as_ref().map_or_else(
                    || "not verified".to_owned(),
                    |verifier| {
                        let took = table::span(Duration::from_micros(proof.verify_us));
                        format!("verified by {verifier} in {took}")
                    },
                );
                lines.push(format!(
                    "  proof         {} on {}: {} bytes by {} in {} and {} of transfer, attempt {}, {verified}",
                    proof.proof_type,
                    proof.zkvm,
                    proof.bytes,
                    proof.prover,
                    table::span(Duration::from_micros(proof.prove_us)),
                    table::span(Duration::from_micros(proof.transfer_us)),
                    proof.attempt,
                ));
            }
        }
        EmissionOutcome::Dead { dead_letter, reason } => {
            lines.push(format!(
                "  reason        {} (dead letter {})",
                one_line(reason),
                one_line(dead_letter)
            ));
        }
        EmissionOutcome::Abandoned(EndReason::Cancelled { note }) => {
            lines.push(format!("  note          {}", one_line(note)));
        }
        EmissionOutcome::Abandoned(_) => {}
    }
    lines.extend(took(record));
    lines.push(format!(
        "  emitted       {}",
        times::with_age(record.stored_at, now())
    ));
    if let Some(id) = record.trace_id() {
        lines.push(format!("  trace         {id}"));
    }
    lines
}

/// Returns where the time of the block went, as far as its record tells.
fn took(record: &Record) -> Vec<String> {
    let account = account::lines(&record.emission, record.stored_at);
    if !account.is_empty() {
        return account;
    }
    let took = record.stored_at.since(record.emission.stored_at);
    let took = table::span(took);
    vec![format!("  took          {took} from stored to emitted")]
}

fn in_flight(found: &Found<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    if found.queued {
        lines.push("  queued        for the dispatcher".into());
    }
    for waiting in &found.waiting {
        for (stage, count) in &waiting.stages {
            lines.push(format!("  {:<12}  {count} of {stage}", waiting.kind));
        }
    }
    for held in &found.held {
        let running = held
            .running_ms
            .map_or("waits for a slot or a transfer".into(), |ms| {
                format!("runs for {}", table::span(Duration::from_millis(ms)))
            });
        let progress = held
            .progress_permille
            .map_or(String::new(), |p| format!(", {}% done", p / 10));
        lines.push(format!(
            "  held          {}#{} by {}: {running}{progress}, heard {} ms ago",
            held.task, held.attempt, held.prover, held.heard_ms_ago
        ));
    }
    if lines.is_empty() {
        lines.push("  no record yet, and no message about it in any stream".into());
    }
    lines
}
