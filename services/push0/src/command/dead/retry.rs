//! `push0 dead retry`: asks for one more attempt at tasks of dead letters.
//!
//! The next attempt is stored before the letter is dropped. If the command is interrupted in between, the
//! operator can run it again: the attempt's subject holds one message, so the attempt is stored once.

use super::selection::Chosen;
use crate::context::Context;
use crate::failure::Failure;
use crate::letters::Place;
use crate::{letters, output};
use push0_bus::{Bus, Message, Pipelines, PublishError, Stream};
use push0_domain::message::{AttemptRecord, Dead, Emission, StageReady};
use push0_domain::pipeline::Pipeline;
use push0_domain::subject::{self, AttemptKey};
use serde_json::json;

pub(super) async fn run(context: &Context, bus: &Bus, chosen: &Chosen) -> Result<(), Failure> {
    let pipelines = Pipelines::bind(bus).await?;
    let mut retried = Vec::new();
    let mut refused = false;
    for place in letters::find(bus, &chosen.which()).await? {
        match retry(bus, &pipelines, &place).await? {
            Ok(attempt) => retried.push((place.id, attempt)),
            Err(reason) => {
                refused = true;
                output::note(&format!("{}: {reason}", place.id));
            }
        }
    }
    if context.json {
        let retried: Vec<_> = retried
            .iter()
            .map(|(id, attempt)| json!({ "id": id, "attempt": attempt }))
            .collect();
        output::json(&json!({ "retried": retried }))?;
    } else {
        for (id, attempt) in retried {
            output::line(&format!("{id}: attempt {attempt} is asked for"))?;
        }
    }
    if refused { Err(Failure::Told) } else { Ok(()) }
}

/// Returns the number of the requested attempt, or the reason for which none was requested.
async fn retry(bus: &Bus, pipelines: &Pipelines, place: &Place) -> Result<Result<u32, String>, Failure> {
    let Some(kept) = letters::read(bus, place).await? else {
        return Ok(Err("it was retried or dropped by another command".into()));
    };
    let letter = match kept.body {
        Ok(letter) => letter,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let Dead::Task { retry, history } = letter.what else {
        return Ok(Err(
            "an unreadable message cannot be retried: drop the letter".into()
        ));
    };
    let ready = next(retry, &history);
    let stage = &ready.stage;
    let pipeline = pipelines
        .revision(&stage.pipeline, ready.context.revision)
        .await?;
    if let Some(reason) = &pipeline.as_ref().and_then(|pipeline| too_late(pipeline, &ready))
        && has_record(bus, &ready).await?
    {
        return Ok(Err(reason.to_string()));
    }
    let is_known = pipeline
        .as_ref()
        .and_then(|p| p.proof(&stage.proof_type))
        .is_some_and(|proof| proof.stage(&stage.stage).is_some());
    if !is_known {
        let revision = ready.context.revision;
        return Ok(Err(format!(
            "revision {revision} of pipeline {} has no stage {stage}",
            stage.pipeline
        )));
    }
    let key = AttemptKey::of(&ready.zkvm, &stage.task(ready.tasks.first).attempt(ready.attempt));
    match bus
        .publish(Message::new(subject::stage(&key), &ready, &kept.trace)?)
        .await
    {
        Ok(_) | Err(PublishError::Occupied { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    bus.purge(Stream::Dead, &place.subject).await?;
    Ok(Ok(ready.attempt))
}

/// Returns why a retry is useless once the block has a record. Other results of the block are deleted when
/// the record is stored, so a retry can lead to a proof only if the task needs no other results.
fn too_late(pipeline: &Pipeline, ready: &StageReady) -> Option<&'static str> {
    if ready.tasks.of > 1 {
        return Some("its block has a record, and the other tasks of this stage are gone: drop the letter");
    }
    (pipeline.quorum > 1).then_some("its block has a record, and its other proofs are gone: drop the letter")
}

async fn has_record(bus: &Bus, ready: &StageReady) -> Result<bool, Failure> {
    let block = ready.stage.block;
    let subject = subject::proof(&ready.stage.pipeline, block.number);
    let record = bus.last::<Emission>(Stream::Proofs, &subject).await?;
    Ok(record
        .and_then(|kept| kept.body.ok())
        .is_some_and(|record| record.last == block))
}

fn next(mut ready: StageReady, history: &[AttemptRecord]) -> StageReady {
    if let Some(last) = history.iter().map(|record| record.attempt).max() {
        ready.attempt = last + 1;
    }
    ready.hedge_of = None;
    ready
}
