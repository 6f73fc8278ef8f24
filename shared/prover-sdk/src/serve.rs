//! Takes work and runs it until the process is asked to stop.

use crate::{Prove, Verify, attempt, check, inbox, node::Node};
use push0_bus::{Backoff, BusError, Delivery, Puller, Stream};
use push0_domain::{
    ZkvmId,
    message::{Role, Task, TaskResult},
};
use push0_runtime::{Component, Shutdown};
use serde::de::DeserializeOwned;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// A kind of work, proving or verifying. The kinds differ only in the messages delivered and the
/// code that runs.
pub(crate) trait Job: Send + Sync + 'static {
    /// Body of the delivered messages.
    type Body: DeserializeOwned + Send + 'static;
    /// Stream of the delivered messages.
    const STREAM: Stream;
    /// Role of the process in its leases.
    const ROLE: Role;
    /// Returns the durable consumer, shared by all processes of this kind.
    fn consumer(zkvm: &ZkvmId) -> String;
    /// Starts the work on a delivery.
    fn begin(&self, node: &Arc<Node>, delivery: Delivery<Self::Body>, work: &mut JoinSet<()>);
}

/// Work of a prover: runs the delivered tasks.
pub(crate) struct Proving<P>(pub(crate) Arc<P>);
/// Work of a verifier: checks completed attempts.
pub(crate) struct Verifying<V>(pub(crate) Arc<V>);

impl<P: Prove> Job for Proving<P> {
    type Body = Task;
    const STREAM: Stream = Stream::Tasks;
    const ROLE: Role = Role::Prover;

    fn consumer(zkvm: &ZkvmId) -> String {
        push0_bus::consumer_of_tasks(zkvm)
    }

    fn begin(&self, node: &Arc<Node>, delivery: Delivery<Task>, work: &mut JoinSet<()>) {
        let (place, stop, progress) = node.ledger.take(
            &delivery.body.header,
            (delivery.sequence, &delivery.ack),
            &delivery.trace,
        );
        work.spawn(attempt::run(
            node.clone(),
            self.0.clone(),
            delivery,
            place,
            stop,
            progress,
        ));
    }
}

impl<V: Verify> Job for Verifying<V> {
    type Body = TaskResult;
    const STREAM: Stream = Stream::Checks;
    const ROLE: Role = Role::Verifier;

    fn consumer(zkvm: &ZkvmId) -> String {
        push0_bus::consumer_of_checks(zkvm)
    }

    fn begin(&self, node: &Arc<Node>, delivery: Delivery<TaskResult>, work: &mut JoinSet<()>) {
        let (place, stop, _) = node.ledger.take(
            &delivery.body.header,
            (delivery.sequence, &delivery.ack),
            &delivery.trace,
        );
        work.spawn(check::run(node.clone(), self.0.clone(), delivery, place, stop));
    }
}

/// Takes and runs work until a stop is requested, then finishes or hands back its deliveries.
pub(crate) async fn serve<J: Job>(
    node: Arc<Node>,
    job: J,
    ready: Component,
    shutdown: Shutdown,
    grace: Duration,
) {
    let mut work = JoinSet::new();
    let mut backoff = Backoff::default();
    let mut said = String::new();
    while !shutdown.is_requested() {
        let began = Instant::now();
        let session = session(&node, &job, &mut work, &ready, &shutdown);
        let Err(error) = node.bus.permitted(session).await else {
            break;
        };
        let reason = error.to_string();
        ready.not_ready(reason.clone());
        if said != reason {
            tracing::warn!(
                prover.id = %node.id,
                zkvm = %node.zkvm,
                %error,
                "takes no work until the broker answers; trying again. See component `broker` or `consumer` in /health/ready"
            );
            said = reason;
        }
        tokio::select! {
            () = shutdown.requested() => break,
            () = backoff.pause_after(began) => {}
        }
    }
    leave(&node, work, grace).await;
}

/// Takes work until a stop is requested. Returns an error if taking work fails.
async fn session<J: Job>(
    node: &Arc<Node>,
    job: &J,
    work: &mut JoinSet<()>,
    ready: &Component,
    shutdown: &Shutdown,
) -> Result<(), BusError> {
    let consumer = J::consumer(&node.zkvm);
    let open = async || Ok::<_, BusError>(node.bus.puller(J::STREAM, &consumer).await?.standby(node.standby));
    let mut puller = Some(open().await?);
    ready.ready();
    let mut orders = std::pin::pin!(inbox::obey(node.clone()));
    loop {
        // An open pull request would still bring unwanted work, so it is closed.
        let takes_work = node.ledger.takes_work() && !shutdown.is_requested();
        match puller.take() {
            Some(unwanted) if !takes_work => unwanted.close().await,
            None if takes_work => puller = Some(open().await?),
            as_it_was => puller = as_it_was,
        }
        let free = node.ledger.free();
        tokio::select! {
            () = shutdown.requested(), if puller.is_some() => {}
            () = shutdown.requested(), if puller.is_none() => return Ok(()),
            taken = take::<J>(puller.as_mut(), free) => job.begin(node, taken?, work),
            ended = &mut orders => return ended.and(Err(BusError::Interrupted)),
            () = node.ledger.freed.notified() => {}
            () = cooled(node) => {}
            Some(ended) = work.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "an attempt panicked outside the adapter, another process will get its task");
                }
            }
        }
    }
}

async fn take<J: Job>(puller: Option<&mut Puller>, free: usize) -> Result<Delivery<J::Body>, BusError> {
    match puller {
        Some(puller) => puller.next(free).await,
        None => std::future::pending().await,
    }
}

async fn cooled(node: &Node) {
    match node.ledger.quarantined_until() {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

/// Gives running attempts their grace, then stops them and hands them back. Waits up to 3 s for that.
async fn leave(node: &Node, mut work: JoinSet<()>, grace: Duration) {
    node.drain();
    tracing::info!(
        held = work.len(),
        "stopping: taking no more work, waiting for running attempts"
    );
    let finished = tokio::time::timeout(grace, async { while work.join_next().await.is_some() {} }).await;
    if finished.is_err() {
        tracing::info!(
            held = work.len(),
            "the grace is over: handing unfinished attempts back"
        );
        node.leaving.cancel();
        node.ledger.stop_all();
        let _ = tokio::time::timeout(Duration::from_secs(3), async {
            while work.join_next().await.is_some() {}
        })
        .await;
    }
    node.bus.flush().await;
}
