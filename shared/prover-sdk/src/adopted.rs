//! Remembers which attempts ended processes have proved, whose results this process offers.

use push0_domain::{
    message::{Task, TaskHeader},
    task::AttemptId,
    wanted::Claims,
};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Most results that are remembered after they were stored.
const REMEMBERED_MAX: usize = 4096;

/// Results that this process took over from ended ones, by attempt and claim, and whether each is stored.
#[derive(Default)]
pub(crate) struct Adopted(Mutex<HashMap<(AttemptId, u64, bool), watch::Receiver<bool>>>);

impl Adopted {
    fn held(&self) -> MutexGuard<'_, HashMap<(AttemptId, u64, bool), watch::Receiver<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a result as offered. The sender tells when the result is stored.
    pub(crate) fn take(&self, header: &TaskHeader) -> watch::Sender<bool> {
        let (stored, is_stored) = watch::channel(false);
        let mut held = self.held();
        if held.len() >= REMEMBERED_MAX {
            held.retain(|_, is_stored| !*is_stored.borrow());
        }
        held.insert(key(header), is_stored);
        stored
    }

    /// Returns whether the result of a task's attempt is offered already, so that it must not be proved again.
    /// Waits until the result is stored.
    pub(crate) async fn stored(&self, task: &Task) -> bool {
        let Some(mut is_stored) = self.held().get(&key(&task.header)).cloned() else {
            return false;
        };
        is_stored.wait_for(|is_stored| *is_stored).await.is_ok()
    }

    /// Returns whether the result of a task's attempt was taken over.
    pub(crate) fn has(&self, task: &Task) -> bool {
        self.held().contains_key(&key(&task.header))
    }
}

fn key(header: &TaskHeader) -> (AttemptId, u64, bool) {
    let claim = header.context.claim();
    (header.attempt_id(), claim.announcement.0, claim.is_retry)
}
