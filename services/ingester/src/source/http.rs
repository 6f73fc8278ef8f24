//! Blocks posted by HTTP.
//!
//! The server (one per process) passes a submission to the task that leads the pipeline, and answers when
//! the broker has stored the blocks. The server keeps no blocks: the submitter must send blocks without a
//! 202 answer again, which is harmless.

mod desk;
pub(crate) mod server;
mod submission;

pub(crate) use desk::Desk;

use super::submitted;
use crate::publisher::{Deposed, resume::Opened};
use push0_runtime::Shutdown;
use submission::{Refused, Submission};
use tokio::sync::mpsc;

/// Most submissions of one pipeline waiting for their turn.
const WAITING_MAX: usize = 16;

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
            // The desk keeps a sender while the pipeline is open.
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
        // A submitter that disconnected will send the blocks again.
        let _ = answer.send(outcome);
    }
}
