//! Remembers which attempts ended processes have proved, whose results this process offers.

use push0_domain::{
    message::{Task, TaskHeader},
    task::AttemptId,
    wanted::Claims,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Most results that are remembered after they were stored.
const REMEMBERED_MAX: usize = 4096;

/// The attempt and the claim of a result.
type Key = (AttemptId, u64, bool);

/// Results that this process took over from ended ones, and whether each is stored. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Adopted(Arc<Mutex<HashMap<Key, watch::Receiver<bool>>>>);

/// A result that is offered. Its task is proved again if this value is dropped before [`Offered::stored`].
pub(crate) struct Offered {
    adopted: Adopted,
    key: Key,
    is_stored: watch::Sender<bool>,
}

impl Offered {
    pub(crate) fn stored(self) {
        self.is_stored.send_replace(true);
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        if !*self.is_stored.borrow() {
            self.adopted.held().remove(&self.key);
        }
    }
}

impl Adopted {
    fn held(&self) -> MutexGuard<'_, HashMap<Key, watch::Receiver<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a result as offered.
    pub(crate) fn take(&self, header: &TaskHeader) -> Offered {
        let (sender, is_stored) = watch::channel(false);
        let mut held = self.held();
        if held.len() >= REMEMBERED_MAX {
            held.retain(|_, is_stored| !*is_stored.borrow());
        }
        held.insert(key(header), is_stored);
        Offered {
            adopted: self.clone(),
            key: key(header),
            is_stored: sender,
        }
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

fn key(header: &TaskHeader) -> Key {
    let claim = header.context.claim();
    (header.attempt_id(), claim.announcement.0, claim.is_retry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::tests::unstored;
    use push0_domain::Payloads;

    #[tokio::test]
    async fn a_task_whose_result_cannot_be_offered_any_more_is_proved_again() {
        let adopted = Adopted::default();
        let task = Task {
            header: unstored(1, &[]).about.header,
            inputs: Payloads::List(Vec::new()),
            avoid: Vec::new(),
        };
        adopted.take(&task.header).stored();
        assert!(adopted.has(&task) && adopted.stored(&task).await);
        let unreadable = adopted.take(&task.header);
        assert!(adopted.has(&task));
        drop(unreadable);
        assert!(!adopted.has(&task) && !adopted.stored(&task).await);
    }
}
