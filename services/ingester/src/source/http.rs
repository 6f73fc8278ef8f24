//! Blocks that somebody posts.
//!
//! The server (one per process) hands a submission to the task that leads its pipeline and answers
//! when the broker has stored it. It holds nothing back: what was not answered with 202 is the
//! submitter's to send again, which is harmless.

mod desk;
pub(crate) mod server;

pub(crate) use desk::Desk;

use super::submitted::{self, Submitted};
use crate::{
    decide::offer::Conflict,
    publisher::{Deposed, Opened},
};
use push0_runtime::Shutdown;
use tokio::sync::{mpsc, oneshot};

/// How many submissions of one pipeline wait for their turn.
const WAITING_MAX: usize = 16;

/// Blocks of one request, and where the answer goes.
pub(crate) struct Submission {
    blocks: Vec<Submitted>,
    answer: oneshot::Sender<Result<usize, Refused>>,
}

/// A block that does not follow.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Its position in the request, from 0.
    position: usize,
    conflict: Conflict,
}

/// Takes submissions for one pipeline until the stop is requested.
pub(super) async fn run(opened: Opened, desk: &Desk, stop: &Shutdown) -> Result<(), Deposed> {
    let Opened {
        mut publisher,
        mut history,
    } = opened;
    let (sender, mut submissions) = mpsc::channel::<Submission>(WAITING_MAX);
    let _open = desk.open(publisher.status.pipeline(), sender);
    publisher.status.fine();
    loop {
        let submission = tokio::select! {
            () = stop.requested() => return Ok(()),
            submission = submissions.recv() => submission,
        };
        let Some(Submission { blocks, answer }) = submission else {
            // The desk keeps a sender while it is open.
            return Ok(());
        };
        // All or none: a request with a wrong block changes nothing.
        let mut next = history.clone();
        let mut steps = Vec::new();
        let mut refused = None;
        for (position, block) in blocks.iter().enumerate() {
            match submitted::steps(&mut next, &publisher.status, block) {
                Ok(more) => steps.extend(more),
                Err(conflict) => {
                    refused = Some(Refused { position, conflict });
                    break;
                }
            }
        }
        let outcome = match refused {
            Some(refused) => Err(refused),
            None => {
                publisher.commit(steps).await?;
                history = next;
                if let Some(tip) = history.tip() {
                    publisher.status.head(tip.number);
                }
                Ok(blocks.len())
            }
        };
        // A submitter that went away sends again.
        let _ = answer.send(outcome);
    }
}
