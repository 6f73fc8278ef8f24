//! `push0 dead retry`: one more attempt for what was given up.
//!
//! The next attempt is stored before the letter is dropped. Whoever is interrupted in between can
//! retry again: the attempt's subject holds one message, so it is asked for once.

use super::Chosen;
use crate::context::Context;
use crate::failure::Failure;
use crate::letters::Place;
use crate::{letters, output};
use push0_bus::{Bus, Message, Pipelines, PublishError, Stream};
use push0_domain::message::{AttemptRecord, Dead, StageReady};
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

/// The number of the attempt that was asked for, or why none was.
async fn retry(bus: &Bus, pipelines: &Pipelines, place: &Place) -> Result<Result<u32, String>, Failure> {
    let Some(kept) = letters::read(bus, place).await? else {
        return Ok(Err("somebody else took it".into()));
    };
    let letter = match kept.body {
        Ok(letter) => letter,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let Dead::Task { retry, history } = letter.what else {
        return Ok(Err(
            "a message that cannot be read cannot be retried: drop it".into()
        ));
    };
    let ready = next(retry, &history);
    let stage = &ready.stage;
    let pipeline = pipelines
        .revision(&stage.pipeline, ready.context.revision)
        .await?;
    let zkvm = pipeline
        .as_ref()
        .and_then(|p| p.proof(&stage.proof_type))
        .and_then(|proof| proof.stage(&stage.stage))
        .map(|(_, stage)| stage.zkvm.clone());
    let Some(zkvm) = zkvm else {
        let revision = ready.context.revision;
        return Ok(Err(format!(
            "revision {revision} of pipeline {} has no stage {stage}",
            stage.pipeline
        )));
    };
    let key = AttemptKey::of(&zkvm, &stage.task(ready.tasks.first).attempt(ready.attempt));
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

fn next(mut ready: StageReady, history: &[AttemptRecord]) -> StageReady {
    if let Some(last) = history.iter().map(|record| record.attempt).max() {
        ready.attempt = last + 1;
    }
    ready.hedge_of = None;
    ready
}
