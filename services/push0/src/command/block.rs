//! `push0 block N`: shows everything known about one block.

use crate::account;
use crate::block_arg::BlockArg;
use crate::context::Context;
use crate::explain::{Explained, Seen, explain};
use crate::failure::Failure;
use crate::options::Of;
use crate::record::{self, Record, RecordJson};
use crate::records;
use crate::work_in_flight::{self, HeldTask, Waiting};
use crate::{output, retrying, table, times};
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
    /// Where the output goes on, if the record is of a chain that was replaced.
    replaced_from: Option<u64>,
    queued: bool,
    waiting: Vec<Waiting>,
    held: Vec<HeldTask>,
    dead_letters: Vec<String>,
    /// The newest attempt of an operator's retry of the dead block.
    retry_attempt: Option<u32>,
    /// Sentences about held queues, for a block that is retried.
    retry_holds: Vec<String>,
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
    let replaced_from = records::replaced_from(&bus, &pipeline, number).await?;
    let counts = record.as_ref().filter(|_| replaced_from.is_none());
    let mut waiting = Vec::new();
    for block in &known {
        waiting.extend(work_in_flight::waiting(&bus, &pipeline, block.block.key()).await?);
    }
    waiting.extend(work_in_flight::waiting_in_ranges(&bus, &pipeline, number).await?);
    let queued = counts.is_none() && work_in_flight::is_queued(&bus, &pipeline, number).await?;
    let held = work_in_flight::held(&bus, &pipeline, number).await?;
    let letters = dead_letters(&bus, &pipeline, number).await?;
    let is_known = record.is_some()
        || queued
        || !(known.is_empty() && waiting.is_empty() && held.is_empty() && letters.is_empty());
    let seen = Seen {
        number,
        is_known,
        queued,
        revision: known
            .iter()
            .max_by_key(|known| known.announced_after)
            .map(|known| known.revision),
        replaced_from: replaced_from.filter(|_| record.is_some()),
        waiting: &waiting,
        held: &held,
    };
    let explained = match counts {
        Some(_) => None,
        None => Some(explain(&bus, &pipeline, &seen).await?),
    };
    let (mut retry_attempt, mut retry_holds) = (None, Vec::new());
    if counts.is_some_and(|record| matches!(record.emission.outcome, EmissionOutcome::Dead { .. })) {
        retry_attempt = retrying::attempt(&bus, &waiting).await?;
    }
    if retry_attempt.is_some() {
        retry_holds = retrying::held_queues(&bus, &pipeline, number..=number).await?;
    }
    let found = Found {
        pipeline: &pipeline,
        number,
        known,
        record: record.as_ref().map(RecordJson::from),
        replaced_from: replaced_from.filter(|_| record.is_some()),
        queued,
        waiting,
        held,
        dead_letters: letters,
        retry_attempt,
        retry_holds,
        explained,
    };
    if context.json {
        output::json(&found)?;
        return if is_known { Ok(()) } else { Err(Failure::Told) };
    }
    if let Some(explained) = found.explained.as_ref().filter(|_| !is_known) {
        return Err(Failure::failed(explained.waits_for.clone()));
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
    lines.extend(found.known.iter().flat_map(|known| facts(found, known, record)));
    match (record, found.replaced_from) {
        (Some(record), None) => {
            lines.extend(emitted(record));
            lines.extend(retried(found));
        }
        (Some(record), Some(next)) => {
            lines.extend(in_flight(found));
            lines.push(format!(
                "  replaced      the output goes on at block {next}, and this record does not count any more:"
            ));
            lines.extend(emitted(record));
        }
        (None, _) => lines.extend(in_flight(found)),
    }
    for id in &found.dead_letters {
        lines.push(format!("  dead letter   {id} (`push0 dead show {id}`)"));
    }
    lines.join("\n")
}

/// Returns what the ingester saw of a block, with its part in the output where several blocks have the number.
fn facts(found: &Found<'_>, known: &KnownBlock, record: Option<&Record>) -> Vec<String> {
    let KnownBlock {
        block,
        parent_hash,
        revision,
        observed_at,
        facts,
        ..
    } = known;
    let counts = record.filter(|_| found.replaced_from.is_none());
    let part = match counts {
        _ if found.known.len() == 1 => "",
        Some(record) if record.emission.blocks().any(|of| of == *block) => " (the record is about this one)",
        Some(_) => " (replaced)",
        None if found
            .known
            .iter()
            .all(|other| other.announced_after <= known.announced_after) =>
        {
            " (announced last)"
        }
        None => " (announced earlier)",
    };
    vec![
        format!("  hash          {}{part}", block.hash),
        format!("  parent        {parent_hash}"),
        format!("  observed      {}", times::with_age(*observed_at, now())),
        format!("  transactions  {}, gas {}", facts.transactions, facts.gas_used),
        format!("  revision      {revision} of the pipeline"),
    ]
}

/// Tells of an operator's retry of the block.
fn retried(found: &Found<'_>) -> Vec<String> {
    let Some(attempt) = found.retry_attempt else {
        return Vec::new();
    };
    let mut lines = vec![format!(
        "  retry         an operator's retry is under way: attempt {attempt}"
    )];
    lines.extend(
        found
            .retry_holds
            .iter()
            .map(|hold| format!("  held queue    {hold}")),
    );
    lines.extend(in_flight(found));
    lines
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
            "  held          {}#{} by {}: {running}{progress}, heard {} ago",
            held.task,
            held.attempt,
            held.prover,
            table::span(Duration::from_millis(held.heard_ms_ago))
        ));
    }
    if lines.is_empty() && found.record.is_none() {
        lines.push("  no record yet, and no message about it in any stream".into());
    }
    lines
}
