//! The life of a process that may lead a role: stand by, win, read stored state, serve, hand over, and again.

use crate::{Backoff, BusError, Leadership, Seldom, Term};
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
/// Distance between the first two log lines about the same failure, and the longest one.
const TOLD_LEAST: Duration = Duration::from_secs(1);
const TOLD_MOST: Duration = Duration::from_secs(600);

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

/// The failures of earlier sessions.
#[derive(Default)]
struct Past {
    /// Whether a session failed, and the role has not been served well since.
    has_failed: Cell<bool>,
    /// Whether the last failure was logged as a warning.
    is_told: Cell<bool>,
}

/// The failure that was logged last. A role that cannot work until a person acts starts over twice a second, and a line for each
/// time would hide the others.
struct Told {
    failure: String,
    seldom: Seldom,
}

impl Told {
    fn nothing() -> Self {
        Self {
            failure: String::new(),
            seldom: Seldom::new(TOLD_LEAST, TOLD_MOST),
        }
    }

    /// Returns whether a failure is to be logged: another one than before, or the same one at a growing distance.
    fn is_due(&mut self, failure: &str, now: Instant) -> bool {
        if self.failure != failure {
            failure.clone_into(&mut self.failure);
            self.seldom.reset();
        }
        self.seldom.is_due(now)
    }
}

/// A term to resign, and how its work ended: well if another process has taken the role.
type Ended = (Term, Result<(), BusError>);

impl Leadership {
    /// Leads the role whenever no other process does, and starts over from stored state after each failure, with growing
    /// pauses.
    pub async fn lead(&self, duty: &impl Duty) -> Infallible {
        let (mut backoff, mut told) = (Backoff::default(), Told::nothing());
        let past = Past::default();
        loop {
            let began = Instant::now();
            let session = self.bus.permitted(self.session(duty, &past));
            let ended = AssertUnwindSafe(session).catch_unwind().await;
            duty.leads(false);
            let failure = match ended {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => Failure::Bus(error),
                Err(_) => Failure::Panic,
            };
            past.is_told
                .set(told.is_due(&failure.to_string(), Instant::now()));
            if past.is_told.get() {
                tracing::warn!(role = self.role, %failure, "starting over from stored state");
            } else {
                tracing::debug!(role = self.role, %failure, "starting over from stored state again");
            }
            past.has_failed.set(true);
            duty.failed(&failure);
            backoff.pause_after(began).await;
        }
    }

    /// Stands by, leads for one term and resigns.
    async fn session(&self, duty: &impl Duty, past: &Past) -> Result<(), BusError> {
        let (term, ended) = self.one_term(duty, past).await?;
        term.resign().await;
        ended
    }

    /// Stands by and leads for one term. Tells the duty when the role is served well.
    async fn one_term(&self, duty: &impl Duty, past: &Past) -> Result<Ended, BusError> {
        let is_served = Notify::new();
        let mut term = pin!(self.term(duty, past, &is_served));
        tokio::select! {
            biased;
            ended = &mut term => return ended,
            () = is_served.notified() => {}
        }
        if past.has_failed.get() {
            tokio::select! {
                biased;
                ended = &mut term => return ended,
                () = tokio::time::sleep(WELL_AFTER) => past.has_failed.set(false),
            }
        }
        duty.is_well();
        term.await
    }

    async fn term(&self, duty: &impl Duty, past: &Past, is_served: &Notify) -> Result<Ended, BusError> {
        self.bus.connected().await;
        let mut term = self.win_reporting(|| is_served.notify_one()).await?;
        if past.has_failed.get() && !past.is_told.get() {
            tracing::debug!(role = self.role, "this process leads again");
        } else {
            tracing::info!(role = self.role, "this process leads");
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_goes_on_is_told_at_a_growing_distance_and_another_one_at_once() {
        let (began, mut told) = (Instant::now(), Told::nothing());
        let mut at = |half_seconds: u32, failure: &str| {
            told.is_due(failure, began + Duration::from_millis(500) * half_seconds)
        };
        let hour = 7200;
        let lines = (0..hour).filter(|half| at(*half, "revision 1 is lost")).count();
        assert!((10..=20).contains(&lines), "{lines} lines in an hour");
        assert!(at(hour, "no broker"));
        assert!(
            at(hour + 1, "revision 1 is lost"),
            "it was another failure in between"
        );
        assert!(!at(hour + 2, "revision 1 is lost"));
    }
}
