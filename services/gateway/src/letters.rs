//! Dead letters, for clients.
//!
//! A letter holds the inputs of its task, so letters are read one by one and only what clients see is kept. Many clients
//! ask for the same list: it is read again only after the stream changed.

use crate::{
    model::text::{cut, end},
    newest,
    view::{Letter, LetterAttempt},
};
use push0_bus::{Bus, BusError, Kept, Stream};
use push0_domain::{
    PipelineId, Timestamp,
    message::{AttemptRecord, Dead, DeadLetter, Emission, EmissionOutcome},
    subject::{self, Kind},
};
use std::sync::Arc;
use tokio::sync::Mutex;

/// How many letters are listed.
pub(crate) const LETTERS_MAX: usize = 200;
/// How many failed attempts of a letter are shown, the last ones.
const ATTEMPTS_MAX: usize = 5;
/// How many bytes of a failure's message are shown in a list, its end.
const MESSAGE_MAX: usize = 1024;
/// Longest reason that is shown, in bytes.
const REASON_MAX: usize = 1024;

/// The newest dead letters.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// The letters that are shown, newest first.
    pub(crate) letters: Vec<Letter>,
    /// How many letters there are, shown or not.
    pub(crate) total: u64,
    /// The sequence of the newest letter, and when the broker's streams were made. Together with the number of letters they
    /// tell whether any came or went.
    newest: (u64, Option<Timestamp>),
}

/// The letters as they were read last.
#[derive(Clone, Default)]
pub(crate) struct Letters(Arc<Mutex<Arc<Listed>>>);

impl Letters {
    /// Returns the newest letters of the streams that were made at this time.
    pub(crate) async fn list(&self, bus: &Bus, made_at: Option<Timestamp>) -> Result<Arc<Listed>, BusError> {
        // Others who ask meanwhile wait for this reading.
        let mut known = self.0.lock().await;
        let (newest, total) = (
            (bus.newest(Stream::Dead).await?, made_at),
            bus.level(Stream::Dead).await?.messages,
        );
        if (known.newest, known.total) != (newest, total) {
            *known = Arc::new(Listed {
                letters: read(bus).await?,
                total,
                newest,
            });
        }
        Ok(known.clone())
    }

    /// Returns the letters about a block: those that are listed, and the one that its record names.
    pub(crate) async fn of_block(
        &self,
        bus: &Bus,
        made_at: Option<Timestamp>,
        pipeline: &PipelineId,
        number: u64,
        is_dead: bool,
    ) -> Result<Vec<Letter>, BusError> {
        let listed = self.list(bus, made_at).await?;
        let is_of_block = |letter: &&Letter| {
            letter.block == Some(number) && letter.pipeline.as_deref() == Some(pipeline.as_str())
        };
        let mut letters: Vec<Letter> = listed.letters.iter().filter(is_of_block).cloned().collect();
        if is_dead && let Some(id) = named_by_record(bus, pipeline, number).await? {
            let is_listed = letters.iter().any(|letter| letter.id == id);
            let subject = subject::dead(Some(pipeline), &id);
            if !is_listed && let Some(kept) = bus.last(Stream::Dead, &subject).await? {
                letters.extend(view(kept));
            }
        }
        Ok(letters)
    }
}

async fn read(bus: &Bus) -> Result<Vec<Letter>, BusError> {
    let all = subject::all(Kind::Dead);
    let mut letters = newest::read(bus, Stream::Dead, &all, LETTERS_MAX, view).await?;
    letters.reverse();
    letters.sort_by_key(|letter| std::cmp::Reverse(letter.at));
    Ok(letters)
}

/// Returns the id of the letter in the record of a dead block.
async fn named_by_record(bus: &Bus, pipeline: &PipelineId, number: u64) -> Result<Option<String>, BusError> {
    let record = bus
        .last::<Emission>(Stream::Proofs, &subject::proof(pipeline, number))
        .await?;
    let outcome = record
        .and_then(|kept| kept.body.ok())
        .map(|record| record.outcome);
    match outcome {
        // The id becomes a part of a subject.
        Some(EmissionOutcome::Dead { dead_letter, .. }) => {
            Ok(subject::dead_of_id(&dead_letter).map(|_| dead_letter))
        }
        _ => Ok(None),
    }
}

fn view(kept: Kept<DeadLetter>) -> Option<Letter> {
    let DeadLetter { id, reason, at, what } = kept.body.ok()?;
    let letter = Letter {
        id: cut(&id, REASON_MAX),
        pipeline: None,
        at: at.0 / 1_000,
        kind: "message",
        block: None,
        hash: None,
        stage: None,
        reason: cut(&reason, REASON_MAX),
        attempts: Vec::new(),
        can_retry: false,
    };
    Some(match what {
        Dead::Message {
            stream,
            subject,
            sequence,
            ..
        } => Letter {
            pipeline: subject::pipeline_of_block(&subject).map(|pipeline| pipeline.to_string()),
            stage: Some(format!("{}, message {sequence}", cut(&stream, REASON_MAX))),
            ..letter
        },
        Dead::Task { retry, history } => Letter {
            pipeline: Some(retry.stage.pipeline.to_string()),
            kind: "task",
            block: Some(retry.stage.block.number),
            hash: Some(retry.stage.block.hash.to_string()),
            stage: Some(format!("{}.{}", retry.stage.proof_type, retry.stage.stage)),
            attempts: last_of(history),
            can_retry: true,
            ..letter
        },
    })
}

fn last_of(mut history: Vec<AttemptRecord>) -> Vec<LetterAttempt> {
    let last = history.split_off(history.len().saturating_sub(ATTEMPTS_MAX));
    let shown = last.into_iter().map(|record| LetterAttempt {
        attempt: record.attempt,
        prover: record.prover.to_string(),
        class: record.failure.class.as_str(),
        message: end(&record.failure.message, MESSAGE_MAX),
    });
    shown.collect()
}
