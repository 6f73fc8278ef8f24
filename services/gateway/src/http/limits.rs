//! How many answers are under way at once: each holds memory until its client has taken it.

use super::refused::Refused;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Answers under way at once. Most take a millisecond.
const ANSWERS_MAX: usize = 4;
/// How long a request waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// Proofs under way at once.
const DOWNLOADS_MAX: usize = 2;
/// Actions of operators under way at once.
const ACTIONS_MAX: usize = 2;

/// Permits for answers.
#[derive(Clone)]
pub(super) struct Limits {
    answers: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    actions: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answers: Arc::new(Semaphore::new(ANSWERS_MAX)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
            actions: Arc::new(Semaphore::new(ACTIONS_MAX)),
        }
    }
}

impl Limits {
    /// Returns the permit for an answer, in turn.
    pub(super) async fn answer(&self) -> Result<OwnedSemaphorePermit, Refused> {
        turn(&self.answers).await
    }

    /// Returns the permit for an action, in turn.
    pub(super) async fn action(&self) -> Result<OwnedSemaphorePermit, Refused> {
        turn(&self.actions).await
    }

    /// Returns the permit for a download; the refusal if there are too many. A download may take minutes, so there is
    /// no line to wait in.
    pub(super) fn download(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let permit = self.downloads.clone().try_acquire_owned();
        permit.map_err(|_| {
            Refused::busy(format!("{DOWNLOADS_MAX} downloads are under way."))
                .hint("Try again, or use `push0 proof get`.")
        })
    }
}

async fn turn(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refused> {
    let permit = timeout(TURN_WITHIN, semaphore.clone().acquire_owned()).await;
    let permit = permit.ok().and_then(Result::ok);
    permit.ok_or_else(|| Refused::busy("Too many requests are under way."))
}
