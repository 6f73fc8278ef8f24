//! Dead letters, for clients.

use crate::view::{Letter, LetterAttempt};
use push0_bus::{Bus, BusError, Stream};
use push0_domain::{
    message::{Dead, DeadLetter},
    subject::{self, Kind},
};

/// How many letters are read.
const LETTERS_MAX: usize = 500;

/// Returns the dead letters, newest first.
pub(crate) async fn read(bus: &Bus) -> Result<Vec<Letter>, BusError> {
    let found = bus
        .scan::<DeadLetter>(Stream::Dead, &subject::all(Kind::Dead), 1, LETTERS_MAX)
        .await?;
    let mut letters: Vec<Letter> = found
        .into_iter()
        .filter_map(|kept| kept.body.ok())
        .map(view)
        .collect();
    letters.sort_by_key(|letter| std::cmp::Reverse(letter.at));
    Ok(letters)
}

fn view(letter: DeadLetter) -> Letter {
    let at = letter.at.0 / 1_000;
    let (id, reason) = (letter.id, letter.reason);
    match letter.what {
        Dead::Message {
            stream,
            subject,
            sequence,
            ..
        } => Letter {
            id,
            pipeline: subject::pipeline_of_block(&subject).map(|pipeline| pipeline.to_string()),
            at,
            kind: "message",
            block: None,
            hash: None,
            stage: Some(format!("{stream}, message {sequence}")),
            reason,
            attempts: Vec::new(),
            can_retry: false,
        },
        Dead::Task { retry, history } => Letter {
            id,
            pipeline: Some(retry.stage.pipeline.to_string()),
            at,
            kind: "task",
            block: Some(retry.stage.block.number),
            hash: Some(retry.stage.block.hash.to_string()),
            stage: Some(format!("{}.{}", retry.stage.proof_type, retry.stage.stage)),
            reason,
            attempts: history
                .into_iter()
                .map(|record| LetterAttempt {
                    attempt: record.attempt,
                    prover: record.prover.to_string(),
                    class: record.failure.class.as_str(),
                    message: record.failure.message,
                })
                .collect(),
            can_retry: true,
        },
    }
}
