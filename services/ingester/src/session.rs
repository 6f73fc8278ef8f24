//! One pipeline in this process: to campaign, to lead, to stop in order.

use crate::{
    publisher::{Deposed, Publisher},
    source::{self, http::Desk},
    status::Status,
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
}

/// Why a source ended by itself.
enum Failure {
    Deposed(Deposed),
    Broker(BusError),
}

impl Session {
    /// Serves the pipeline until it is removed or the service stops.
    pub(crate) async fn run(mut self) -> Result<(), Infallible> {
        while !self.is_over() {
            if self.source() == Source::External {
                self.status.fine();
                self.changed(&Source::External).await;
                continue;
            }
            let over = over(&self.definition, &self.shutdown);
            let term = tokio::select! {
                () = over => break,
                term = campaign(&self.bus, &self.candidate, &mut self.status) => term,
            };
            self.lead(term).await;
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
        let mut definition = self.definition.clone();
        tokio::select! {
            () = self.shutdown.requested() => {}
            _ = definition.wait_for(|definition| definition.source != *source) => {}
        }
    }

    async fn lead(&mut self, mut term: Term) {
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
                let stop = Shutdown::new();
                let mut work = pin!(self.work(&source, &stop));
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
                    Err(Failure::Deposed(Deposed)) => "somebody else moved the cursor".to_owned(),
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
            End::Lost => tracing::info!(%pipeline, "leads no longer"),
        }
    }

    async fn work(&self, source: &Source, stop: &Shutdown) -> Result<(), Failure> {
        let opened = Publisher::open(&self.bus, self.definition.clone(), self.status.clone());
        let opened = opened.await.map_err(Failure::Broker)?;
        let ended = source::run(source, opened, &self.desk, stop).await;
        ended.map_err(Failure::Deposed)
    }
}

/// Waits until the service stops or the pipeline is removed.
fn over(
    definition: &watch::Receiver<Arc<Pipeline>>,
    shutdown: &Shutdown,
) -> impl Future<Output = ()> + use<> {
    let (mut definition, shutdown) = (definition.clone(), shutdown.clone());
    async move {
        tokio::select! {
            () = shutdown.requested() => {}
            () = async { while definition.changed().await.is_ok() {} } => {}
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
                tracing::debug!(pipeline = %status.pipeline(), %error, "cannot campaign yet");
                backoff.pause().await;
            }
        }
    }
}
