//! Stores the end of an attempt, however long the broker is away or full.
//!
//! A finished proof may have cost hours. So its result is offered until it is stored. If that takes longer than
//! a moment, the result is also written to the [spool](crate::spool), where it outlives this process.

use crate::{
    adopted::Offered,
    node::Node,
    spool::{About, Kept, Unstored},
    transfer,
};
use futures::{StreamExt, stream::FuturesUnordered};
use push0_bus::{Message, now};
use push0_domain::{
    Timestamp,
    codec::CodecError,
    message::{Failure, FailureClass, Outcome, ResultEvent, TaskResult},
    subject,
    time::micros,
    trace::{AttemptTold, Span, TraceContext, attempt},
};
use push0_runtime::trace;
use std::{
    convert::Infallible,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

/// How long a result waits in memory only. The restart of a broker takes less.
const SPOOL_AFTER: Duration = Duration::from_secs(2);
/// How often the spool is searched for results of processes that ended.
const ADOPT_EVERY: Duration = Duration::from_secs(10);
/// How many results of ended processes are offered at once. Each has its outputs in memory.
const ADOPTED_AT_ONCE: usize = 4;
/// How long one publish is repeated before the next one. Each repetition logs its first failure.
const PATIENCE: Duration = Duration::from_secs(600);

/// The fate of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The broker has the result.
    Stored,
    /// The process leaves. The result is in the spool, if there is one.
    Left {
        /// Whether the result is in the spool.
        is_kept: bool,
    },
    /// The result can never be stored.
    Refused,
}

/// Stores a result. `freed` is called when the outputs are stored, so that only the message remains.
pub(crate) async fn store(
    node: &Node,
    unstored: Unstored,
    stop: &CancellationToken,
    freed: impl FnOnce(),
) -> Fate {
    let unstored = Arc::new(unstored);
    let kept = {
        let mut offering = pin!(offer(node, &unstored, freed));
        tokio::select! {
            biased;
            fate = &mut offering => return fate,
            () = tokio::time::sleep(SPOOL_AFTER) => {}
            () = node.leaving.cancelled() => {}
        }
        let kept = keep(node, &unstored).await;
        let is_kept = kept.is_some();
        tokio::select! {
            biased;
            fate = &mut offering => {
                close(node, kept, fate);
                return fate;
            }
            () = node.leaving.cancelled() => return Fate::Left { is_kept },
            () = stop.cancelled() => kept,
        }
    };
    // The block has ended meanwhile, so its outputs need no room. The collector asks for another attempt if the
    // work is wanted in spite of that.
    close(node, kept, Fate::Left { is_kept: false });
    let stopped = Failure::new(
        FailureClass::Stopped,
        "told to stop while its result waited for room",
    );
    let unstored = Unstored {
        about: About {
            failure: Some(stopped),
            ..unstored.about.clone()
        },
        outputs: Vec::new(),
    };
    tokio::select! {
        fate = offer(node, &unstored, || {}) => fate,
        () = node.leaving.cancelled() => Fate::Left { is_kept: false },
    }
}

/// Writes a result to the spool, if there is one with room.
async fn keep(node: &Node, unstored: &Arc<Unstored>) -> Option<Kept> {
    if !node.spool.is_on() || unstored.about.is_stopped() {
        return None;
    }
    let (spool, entry) = (node.spool.clone(), unstored.clone());
    let (id, attempt) = (&unstored.about.header.id, unstored.about.header.attempt);
    match spawn_blocking(move || spool.keep(&entry)).await {
        Ok(Ok(kept)) => {
            tracing::warn!(task.id = %id, attempt, "the broker does not take a result, it is kept in the spool and offered until it is stored");
            node.metrics.spooled.inc();
            Some(kept)
        }
        Ok(Err(error)) => {
            tracing::error!(task.id = %id, attempt, %error, "the broker does not take a result, and the spool neither: it is offered as long as this process lives");
            None
        }
        Err(error) => {
            tracing::error!(task.id = %id, attempt, %error, "writing to the spool panicked");
            None
        }
    }
}

/// Ends the stay of a result in the spool. A proof that the broker refuses may have cost hours, so it is set aside.
fn close(node: &Node, kept: Option<Kept>, fate: Fate) {
    if let Some(kept) = kept {
        node.metrics.spooled.dec();
        match fate {
            Fate::Refused => kept.set_aside(),
            Fate::Stored | Fate::Left { .. } => kept.remove(),
        }
    }
}

/// Offers a result until it is stored.
async fn offer(node: &Node, unstored: &Unstored, freed: impl FnOnce()) -> Fate {
    let (about, began) = (&unstored.about, Instant::now());
    let outcome = match &about.failure {
        Some(failure) => Outcome::Failed(failure.clone()),
        None => match transfer::write(node, &about.header, &unstored.outputs).await {
            Ok(outputs) => Outcome::Completed { outputs },
            Err(error) => {
                let reason = format!("the outputs cannot be stored: {error}");
                Outcome::Failed(Failure::new(FailureClass::Retryable, reason))
            }
        },
    };
    freed();
    let completed = matches!(outcome, Outcome::Completed { .. });
    let to_check = completed && about.header.check;
    let mut result = TaskResult {
        // A result of an ended process is offered under the name of this one: no other may be used.
        prover: node.id.clone(),
        outcome,
        inputs: (to_check || !completed).then(|| about.inputs.clone()),
        prove_us: about.prove_us,
        transfer_us: about.transfer_us + micros(began.elapsed()),
        waited_us: about.waited_us,
        signature: None,
        verdict: None,
        header: about.header.clone(),
    };
    node.metrics.attempt(&result);
    let end = now();
    let spans = told(node, about, &result, end);
    let signer = node.signer.as_ref();
    result.signature = signer.and_then(|signer| signer.sign(&result.statement()));
    let id = &about.header.id;
    let trace = about.trace.map(|trace| trace.since(end));
    let message = match message(node, result, &trace) {
        Ok(message) => message,
        Err(error) => {
            tracing::error!(task.id = %id, %error, "result cannot be encoded, another prover will get the task");
            return Fate::Refused;
        }
    };
    loop {
        match node.bus.publish_patiently(message.clone(), PATIENCE).await {
            Ok(_) => {
                trace::write(spans);
                return Fate::Stored;
            }
            Err(error) if error.is_transient() => {
                tracing::error!(
                    task.id = %id,
                    attempt = about.header.attempt,
                    %error,
                    "the broker has not stored this result for ten minutes; it is offered until it is stored: \
                     `push0 status` shows full streams"
                );
            }
            Err(error) => {
                tracing::error!(task.id = %id, %error, "result refused, another prover will get the task");
                return Fate::Refused;
            }
        }
    }
}

/// Returns the spans of an attempt that ended here.
fn told(node: &Node, about: &About, result: &TaskResult, end: Timestamp) -> Vec<Span> {
    let Some(begun) = about.begun.as_ref().filter(|_| trace::is_on()) else {
        return Vec::new();
    };
    let failure = result.failure();
    let told = AttemptTold {
        header: &about.header,
        prover: &node.id,
        released_at: begun.released_at,
        begun_at: Some(begun.begun_at),
        read: Duration::from_micros(about.transfer_us),
        proved: Duration::from_micros(about.prove_us),
        heard_at: None,
        end,
        failure: failure.as_ref(),
        events: begun.lines.clone(),
    };
    attempt(&about.trace, &told)
}

/// Returns the message of a signed result, for a verifier or for the collector.
fn message(node: &Node, result: TaskResult, trace: &TraceContext) -> Result<Message, CodecError> {
    let signature = result.signature.clone();
    let (attempt, key) = (
        result.header.key(),
        signature.as_ref().map(|signature| signature.key.as_str()),
    );
    let is_completed = matches!(result.outcome, Outcome::Completed { .. });
    if is_completed && result.header.check {
        return Message::new(subject::check(&node.id, &attempt, key), &result, trace);
    }
    let subject = subject::result(&node.id, &attempt, key);
    Message::new(subject, &ResultEvent::Attempt(result), trace)
}

type Taken = Vec<(About, Kept, Offered)>;

/// Takes over the results of ended processes.
pub(crate) async fn adopt(node: &Arc<Node>) -> Taken {
    if !node.spool.is_on() {
        return Vec::new();
    }
    let (spool, zkvm) = (node.spool.clone(), node.zkvm.clone());
    // A prover may publish results of its own zkVM only.
    let searched = spawn_blocking(move || {
        let found = spool.adopt(|about| about.header.zkvm == zkvm);
        (found, spool.bound_aside())
    })
    .await;
    let found = searched.map(|(found, aside)| {
        match aside {
            Ok(left) => node.metrics.aside.set(i64::try_from(left).unwrap_or(i64::MAX)),
            Err(error) => {
                tracing::warn!(%error, "files set aside in the spool cannot be counted, trying again later")
            }
        }
        found
    });
    match found {
        Ok(Ok(found)) => found
            .into_iter()
            .map(|(about, kept)| {
                tracing::info!(task.id = %about.header.id, attempt = about.header.attempt, prover.id = %about.prover, "offering a result from the spool");
                node.metrics.spooled.inc();
                let offered = node.adopted.take(&about.header);
                (about, kept, offered)
            })
            .collect(),
        Ok(Err(error)) => {
            tracing::error!(%error, "the spool cannot be read, trying again later");
            Vec::new()
        }
        Err(error) => {
            tracing::error!(%error, "reading the spool panicked");
            Vec::new()
        }
    }
}

/// Offers results of ended processes, those in `taken` first, as long as this process lives.
pub(crate) async fn offer_adopted(node: &Arc<Node>, mut taken: Taken) -> Infallible {
    let mut offering = FuturesUnordered::new();
    let mut look = tokio::time::interval(ADOPT_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    look.reset();
    loop {
        while offering.len() < ADOPTED_AT_ONCE
            && let Some((about, kept, offered)) = taken.pop()
        {
            offering.push(offer_one(node, about, kept, offered));
        }
        tokio::select! {
            Some(()) = offering.next() => {}
            _ = look.tick() => taken.extend(adopt(node).await),
        }
    }
}

async fn offer_one(node: &Arc<Node>, about: About, mut kept: Kept, offered: Offered) {
    let read = spawn_blocking(move || (kept.read(), kept)).await;
    let (unstored, kept) = match read {
        Ok((Ok(unstored), kept)) => (unstored, kept),
        Ok((Err(reason), _)) => {
            tracing::error!(task.id = %about.header.id, reason, "a result in the spool cannot be read any more, its task is proved again unless a later look reads it");
            return node.metrics.spooled.dec();
        }
        Err(error) => {
            tracing::error!(%error, "reading the spool panicked");
            return node.metrics.spooled.dec();
        }
    };
    let fate = offer(node, &unstored, || {}).await;
    close(node, Some(kept), fate);
    if fate == Fate::Stored {
        tracing::info!(task.id = %about.header.id, attempt = about.header.attempt, "a result from the spool is stored");
        offered.stored();
    }
}
