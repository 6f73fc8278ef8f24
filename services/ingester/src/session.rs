//! One pipeline in this process: to campaign, to lead, to stop in order.

use crate::{
    publisher::Publisher,
    source::{Access, Ended, http::Desk},
    status::{Status, Trouble},
};
use push0_bus::{Backoff, Bus, BusError, Leadership, Term};
use push0_domain::pipeline::{Pipeline, Source};
use push0_runtime::Shutdown;
use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};
use tokio::sync::watch;

/// How long the current publish may take to end when the source is stopped. What does not end in
/// time is published again by the next leader.
const FINISH: Duration = Duration::from_secs(5);
/// After how long without a lead it counts as somebody else's: more than a term takes to run out.
const STANDBY_AFTER: Duration = Duration::from_secs(1);

/// What the task of a pipeline needs.
pub(crate) struct Session {
    pub(crate) bus: Bus,
    pub(crate) candidate: Leadership,
    /// The pipeline's definition; closed when the pipeline is removed.
    pub(crate) definition: watch::Receiver<Arc<Pipeline>>,
    pub(crate) desk: Desk,
    pub(crate) status: Status,
    pub(crate) shutdown: Shutdown,
}

/// Why a lead ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// This process stops, or the pipeline was removed, or needs no ingester.
    Finished,
    /// Another process leads, or the broker is away.
    Lost,
    /// This process does not reach the source; another one may.
    OutOfReach,
}

/// Why the work of a leader ended.
enum Failure {
    Source(Ended),
    Broker(BusError),
}

impl Session {
    /// Serves the pipeline until it is removed or the service stops.
    ///
    /// Who does not reach the source does not ask for the lead, and a leader that does not reach it any
    /// more gives the lead up. So a standby that reaches it leads, and nobody while nobody does: the
    /// lead does not go to and fro.
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
        // What is not served any more is not waited for.
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

    /// Waits until the source is another one, or all is over.
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
                let mut work = pin!(self.work(access, &stop));
                let ended = tokio::select! {
                    () = &mut lost => break End::Lost,
                    ended = &mut work => ended,
                    () = self.changed(&source) => {
                        stop.trigger();
                        tokio::select! {
                            () = &mut lost => break End::Lost,
                            ended = &mut work => ended,
                            () = tokio::time::sleep(FINISH) => Ok(()),
                        }
                    }
                };
                let reason = match ended {
                    Ok(()) => continue,
                    Err(Failure::Source(Ended::OutOfReach)) => break End::OutOfReach,
                    Err(Failure::Source(Ended::Deposed)) => "somebody else moved the cursor".to_owned(),
                    Err(Failure::Broker(error)) => error.to_string(),
                };
                tracing::debug!(%pipeline, reason, "starting over from stored state");
                tokio::select! {
                    () = &mut lost => break End::Lost,
                    () = backoff.pause() => {}
                }
            }
        };
        match end {
            End::Finished => {
                term.resign().await;
                tracing::info!(%pipeline, "resigned");
            }
            End::OutOfReach => {
                term.resign().await;
                tracing::warn!(%pipeline, "resigned: the source is out of reach of this process");
            }
            End::Lost => tracing::info!(%pipeline, "leads no longer"),
        }
    }

    async fn work(&self, access: &Access, stop: &Shutdown) -> Result<(), Failure> {
        let opened = Publisher::open(&self.bus, self.definition.clone(), self.status.clone());
        let opened = opened.await.map_err(Failure::Broker)?;
        let ended = access.run(opened, &self.desk, stop).await;
        ended.map_err(Failure::Source)
    }
}

/// Waits until the source is another one, the service stops, or the pipeline is removed.
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
        let mut won = pin!(bus.permitted(candidate.win()));
        let outcome = tokio::select! {
            outcome = &mut won => outcome,
            () = tokio::time::sleep(STANDBY_AFTER) => {
                // Somebody else leads: this process has nothing to do, and is ready to take over.
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
