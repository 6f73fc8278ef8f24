//! The life of a process that may lead a role: stand by, win, read stored state, serve, hand over, and again.

use crate::{Backoff, BusError, Leadership, Term};
use futures::FutureExt;
use std::{
    cell::Cell,
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::pin,
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How long a role must be served without trouble after a failure before it counts as well again: far longer than a
/// session that fails at once.
const WELL_AFTER: Duration = Duration::from_secs(2);

/// The work of a role, which one process at a time does.
pub trait Duty {
    /// The state that the leader keeps in memory. All of it is read from the broker when a term begins.
    type State<'a>
    where
        Self: 'a;

    /// Reads stored state at the beginning of a term. The work of [`Self::serve`] must miss no message from then on.
    fn start(&self) -> impl Future<Output = Result<Self::State<'_>, BusError>>;

    /// Does the work until an operation on the broker fails. May be dropped at any time, when the term ends.
    fn serve<'a>(&'a self, state: Self::State<'a>) -> impl Future<Output = Result<Infallible, BusError>>;

    /// Called when this process begins to lead and when it ceases to.
    fn leads(&self, leads: bool);

    /// Called when the role is served well: this process leads it, or stands by for another one. After a failure, only
    /// once that has been so for two seconds.
    fn is_well(&self);

    /// Called when a session has failed, before the process starts over from stored state.
    fn failed(&self, failure: &Failure);
}

/// Why a process starts over from stored state.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An operation on the broker failed.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The work panicked. One message must not stop a role: after a restart another message may settle it first, and an
    /// operator who reads this can cancel the block.
    #[error("the work panicked, and the log says where: please report both")]
    Panic,
}

/// A term to resign, and how its work ended: well if another process has taken the role.
type Ended = (Term, Result<(), BusError>);

impl Leadership {
    /// Leads the role whenever no other process does, and starts over from stored state after each failure, with growing
    /// pauses.
    pub async fn lead(&self, duty: &impl Duty) -> Infallible {
        let (mut backoff, has_failed) = (Backoff::default(), Cell::new(false));
        loop {
            let began = Instant::now();
            let session = self.bus.permitted(self.session(duty, &has_failed));
            let ended = AssertUnwindSafe(session).catch_unwind().await;
            duty.leads(false);
            let failure = match ended {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => Failure::Bus(error),
                Err(_) => Failure::Panic,
            };
            tracing::warn!(role = self.role, %failure, "starting over from stored state");
            has_failed.set(true);
            duty.failed(&failure);
            backoff.pause_after(began).await;
        }
    }

    /// Stands by, leads for one term and resigns.
    async fn session(&self, duty: &impl Duty, has_failed: &Cell<bool>) -> Result<(), BusError> {
        let (term, ended) = self.one_term(duty, has_failed).await?;
        term.resign().await;
        ended
    }

    /// Stands by and leads for one term. Tells the duty when the role is served well.
    async fn one_term(&self, duty: &impl Duty, has_failed: &Cell<bool>) -> Result<Ended, BusError> {
        let is_served = Notify::new();
        let mut term = pin!(self.term(duty, &is_served));
        tokio::select! {
            biased;
            ended = &mut term => return ended,
            () = is_served.notified() => {}
        }
        if has_failed.get() {
            tokio::select! {
                biased;
                ended = &mut term => return ended,
                () = tokio::time::sleep(WELL_AFTER) => has_failed.set(false),
            }
        }
        duty.is_well();
        term.await
    }

    async fn term(&self, duty: &impl Duty, is_served: &Notify) -> Result<Ended, BusError> {
        self.bus.connected().await;
        let mut term = self.win_reporting(|| is_served.notify_one()).await?;
        tracing::info!(role = self.role, "this process leads");
        duty.leads(true);
        let work = async { duty.serve(duty.start().await?).await };
        let ended = tokio::select! {
            biased;
            loss = term.hold() => loss.of_broker(&self.role),
            () = self.bus.interrupted() => Err(BusError::Interrupted),
            failed = work => match failed {
                Err(error) => Err(error),
                Ok(never) => match never {},
            },
        };
        if ended.is_ok() {
            tracing::warn!(role = self.role, "another process leads");
        }
        Ok((term, ended))
    }
}
