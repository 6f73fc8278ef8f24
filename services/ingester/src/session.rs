//! Life of one pipeline in this process: campaign, lead, stop in order.

use crate::{
    publisher::Publisher,
    source::{Access, Ended, http::Desk},
    status::{Status, Trouble},
};
use push0_bus::{Backoff, Bus, BusError, Leadership, Loss, Term};
use push0_domain::pipeline::{Pipeline, Source};
use push0_runtime::Shutdown;
use std::{
    convert::Infallible,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};

/// Time limit for the current publish to end after the source is stopped. Blocks not stored by then are
/// published again by the next leader.
const FINISH: Duration = Duration::from_secs(5);

/// How long a process whose node is of no use leaves the lead to others.
const STEP_ASIDE: Duration = Duration::from_secs(2);

/// Everything that a pipeline's task needs.
pub(crate) struct Session {
    pub(crate) bus: Bus,
    pub(crate) candidate: Leadership,
    /// The pipeline's definition; the channel closes when the pipeline is removed.
    pub(crate) definition: watch::Receiver<Arc<Pipeline>>,
    pub(crate) desk: Desk,
    pub(crate) status: Status,
    pub(crate) shutdown: Shutdown,
}

/// Reasons why a lead ended.
#[derive(Clone, PartialEq, Eq)]
enum End {
    /// The process stops, or the pipeline was removed or needs no ingester.
    Finished,
    /// Another process leads, or the broker stores no renewals.
    Lost(Loss),
    /// This process cannot reach the source; another one may.
    OutOfReach,
    /// The node that this process reaches is of no use; another process may reach another one.
    OfNoUse(String),
}

/// Reasons why the work of a leader ended.
enum Failure {
    Source(Ended),
    Broker(BusError),
}

impl Session {
    /// Serves the pipeline until the pipeline is removed or the service stops.
    ///
    /// Only a process that reaches the source asks for the lead, and a leader that loses the source
    /// resigns. A standby that reaches the source therefore takes over. While no process reaches the
    /// source, none leads, so the lead does not move back and forth.
    pub(crate) async fn run(mut self) -> Result<(), Infallible> {
        let mut access = Access::new(&self.source(), &self.status);
        while !self.is_over() {
            if *access.source() != self.source() {
                access = Access::new(&self.source(), &self.status);
            }
            if *access.source() == Source::External {
                self.status.fine();
                self.changed(&Source::External).await;
                continue;
            }
            let changed = changed(&self.definition, &self.shutdown, access.source());
            let term = tokio::select! {
                () = changed => continue,
                term = async {
                    access.reach(&mut self.status).await;
                    campaign(&self.bus, &self.candidate, &mut self.status).await
                } => term,
            };
            self.lead(term, &mut access).await;
        }
        // A pipeline no longer served here must not keep the process from being ready.
        self.status.fine();
        self.candidate.withdraw();
        Ok(())
    }

    fn source(&self) -> Source {
        self.definition.borrow().source.clone()
    }

    fn is_over(&self) -> bool {
        self.shutdown.is_requested() || self.definition.has_changed().is_err()
    }

    /// Waits until the source changes, the service stops, or the pipeline is removed.
    async fn changed(&self, source: &Source) {
        changed(&self.definition, &self.shutdown, source).await;
    }

    async fn lead(&mut self, mut term: Term, access: &mut Access) {
        let pipeline = self.status.pipeline().clone();
        tracing::info!(%pipeline, "leading");
        let end = {
            let mut lost = pin!(term.hold());
            let mut backoff = Backoff::default();
            loop {
                let source = self.source();
                if self.is_over() || source == Source::External {
                    break End::Finished;
                }
                if *access.source() != source {
                    *access = Access::new(&source, &self.status);
                }
                let stop = Shutdown::new();
                let began = Instant::now();
                let mut work = pin!(self.work(access, &stop));
                let ended = tokio::select! {
                    loss = &mut lost => break End::Lost(loss),
                    ended = &mut work => ended,
                    () = self.changed(&source) => {
                        stop.trigger();
                        tokio::select! {
                            loss = &mut lost => break End::Lost(loss),
                            ended = &mut work => ended,
                            () = tokio::time::sleep(FINISH) => Ok(()),
                        }
                    }
                };
                let reason = match ended {
                    Ok(()) | Err(Failure::Source(Ended::Again)) => continue,
                    Err(Failure::Source(Ended::OutOfReach)) => break End::OutOfReach,
                    Err(Failure::Source(Ended::OfNoUse(node))) => break End::OfNoUse(node),
                    Err(Failure::Source(Ended::Deposed)) => "another process moved the cursor".to_owned(),
                    Err(Failure::Broker(error)) => {
                        if error.is_damage() {
                            let reason = format!("{error}; `push0 repair` mends it");
                            self.status.clone().blocked(Trouble::State, &reason);
                        }
                        error.to_string()
                    }
                };
                tracing::debug!(%pipeline, reason, "starting over from stored state");
                tokio::select! {
                    loss = &mut lost => break End::Lost(loss),
                    () = backoff.pause_after(began) => {}
                }
            }
        };
        self.ended(end, term, access).await;
    }

    /// Gives the lead up, and says why it ended.
    async fn ended(&mut self, end: End, term: Term, access: &Access) {
        let pipeline = self.status.pipeline().clone();
        match end {
            End::Finished => {
                term.resign().await;
                tracing::info!(%pipeline, "resigned");
            }
            End::OutOfReach => {
                term.resign().await;
                tracing::warn!(%pipeline, "resigned: this process cannot reach the source");
            }
            End::OfNoUse(node) => {
                term.resign().await;
                tracing::warn!(
                    %pipeline,
                    node,
                    "resigned: the node answers, but is pruned, behind or at a standstill, and another ingester may reach a better \
                     one. If none has, the lead changes now and then: look at the node"
                );
                // Asked for at once, the lead would come back before a standby has noticed.
                let changed = changed(&self.definition, &self.shutdown, access.source());
                let _ = tokio::time::timeout(STEP_ASIDE, changed).await;
            }
            End::Lost(Loss::Taken) => tracing::info!(%pipeline, "another ingester leads"),
            End::Lost(Loss::Unanswered(reason)) => {
                self.status
                    .failing(Trouble::Broker, &format!("the broker renews no lead: {reason}"));
            }
        }
    }

    async fn work(&self, access: &Access, stop: &Shutdown) -> Result<(), Failure> {
        let opened = Publisher::open(
            &self.bus,
            access.depth(),
            self.definition.clone(),
            self.status.clone(),
        );
        let opened = opened.await.map_err(Failure::Broker)?;
        let ended = access.run(opened, &self.desk, stop).await;
        ended.map_err(Failure::Source)
    }
}

/// Waits until the source changes, the service stops, or the pipeline is removed.
fn changed(
    definition: &watch::Receiver<Arc<Pipeline>>,
    shutdown: &Shutdown,
    source: &Source,
) -> impl Future<Output = ()> + use<> {
    let (mut definition, shutdown, source) = (definition.clone(), shutdown.clone(), source.clone());
    async move {
        tokio::select! {
            () = shutdown.requested() => {}
            _ = definition.wait_for(|definition| definition.source != source) => {}
        }
    }
}

/// Waits until this process leads the pipeline.
async fn campaign(bus: &Bus, candidate: &Leadership, status: &mut Status) -> Term {
    let mut backoff = Backoff::default();
    loop {
        bus.connected().await;
        let is_served = Notify::new();
        let mut won = pin!(bus.permitted(candidate.win_reporting(|| is_served.notify_one())));
        let outcome = tokio::select! {
            biased;
            outcome = &mut won => outcome,
            () = is_served.notified() => {
                // Another process leads. This one has nothing to do, and is ready to take over.
                status.fine();
                won.await
            }
        };
        match outcome {
            Ok(term) => return term,
            Err(error) => {
                status.failing(Trouble::Broker, &format!("cannot ask for the lead: {error}"));
                backoff.pause().await;
            }
        }
    }
}
