//! Blocks posted by HTTP.
//!
//! The server (one per process) passes a submission to the task that leads the pipeline, and answers when
//! the broker has stored the blocks. The server keeps no blocks: the submitter must send blocks without a
//! 202 answer again, which is harmless.

mod desk;
pub(crate) mod server;
mod submission;

pub(crate) use desk::Desk;

use super::{ended::Ended, submitted};
use crate::{
    decide::{
        History,
        offer::{self, Offer},
    },
    publisher::{Publisher, Step, Unstored, Wait, resume::Opened},
};
use push0_runtime::Shutdown;
use std::{pin::pin, time::Duration};
use submission::{Refused, Submission};
use tokio::{sync::mpsc, time::timeout};

/// Most submissions of one pipeline waiting for their turn in its channel. Others wait in their requests, and end with
/// them.
const WAITING_MAX: usize = 1;
/// Longest time in which a submission is stored. Its memory is then for others; its submitter no longer waits.
const STORE_MAX: Duration = Duration::from_secs(30);

/// Takes submissions for one pipeline until the stop is requested.
pub(super) async fn run(opened: Opened, desk: &Desk, stop: &Shutdown) -> Result<(), Ended> {
    let Opened {
        mut publisher,
        mut history,
    } = opened;
    let (sender, mut submissions) = mpsc::channel::<Submission>(WAITING_MAX);
    let open = desk.open(publisher.status.pipeline(), sender);
    publisher.status.fine();
    loop {
        let submission = tokio::select! {
            () = stop.requested() => return Ok(()),
            submission = submissions.recv() => submission,
        };
        let Some(Submission { blocks, answer, room }) = submission else {
            // The desk keeps a sender while the pipeline is open.
            return Ok(());
        };
        // A submitter that gave up will send the blocks again.
        if answer.is_closed() {
            continue;
        }
        let bytes = blocks.iter().map(|block| block.witness.len() as u64).sum();
        let outcome = match judge(&history, &publisher, &blocks) {
            Err(refused) => Err(refused),
            Ok(_) if !publisher.has_room(bytes).await => Err(Refused::NoRoom),
            Ok((next, steps)) => match timeout(STORE_MAX, publisher.store(steps, Wait::Never)).await {
                Ok(Ok(())) => {
                    history = next;
                    if let Some(tip) = history.tip() {
                        publisher.status.head(tip.number);
                    }
                    Ok(blocks.len())
                }
                Ok(Err(Unstored::Deposed(deposed))) => return Err(deposed.into()),
                // Some of the blocks may be stored. The answer asks for all of them again.
                Ok(Err(Unstored::NoRoom)) => {
                    let _ = answer.send(Err(Refused::NoRoom));
                    return Err(Ended::Again);
                }
                Err(_) => return Err(Ended::Again),
            },
        };
        drop((blocks, room));
        let is_full = matches!(outcome, Err(Refused::NoRoom));
        let _ = answer.send(outcome);
        if is_full {
            open.has_room(false);
            tokio::select! {
                () = stop.requested() => return Ok(()),
                () = wait_for_room(&mut publisher, bytes, &mut submissions) => open.has_room(true),
            }
        }
    }
}

/// Returns the steps for all blocks and the history after them. All or none: a request with a wrong block changes
/// nothing.
fn judge(
    history: &History,
    publisher: &Publisher,
    blocks: &[submitted::Submitted],
) -> Result<(History, Vec<Step>), Refused> {
    let mut next = history.clone();
    let mut steps = Vec::new();
    let offers: Vec<Offer> = blocks.iter().map(|block| block.offer).collect();
    let known = offer::known_before(history, publisher.status.pipeline(), &offers);
    for (position, block) in blocks.iter().enumerate().skip(known) {
        let more = submitted::steps(&mut next, &publisher.status, block);
        steps.extend(more.map_err(|conflict| Refused::Conflict { position, conflict })?);
    }
    Ok((next, steps))
}

/// Waits until there is room for so many bytes. Nothing waits in memory meanwhile: submissions are refused at once.
async fn wait_for_room(publisher: &mut Publisher, bytes: u64, submissions: &mut mpsc::Receiver<Submission>) {
    let mut room = pin!(publisher.wait_for_room(bytes));
    loop {
        tokio::select! {
            () = &mut room => return,
            Some(submission) = submissions.recv() => {
                let _ = submission.answer.send(Err(Refused::NoRoom));
            }
        }
    }
}
