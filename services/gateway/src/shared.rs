//! The state between the shell that listens and the shell that answers.

use crate::{
    feed::{Feed, Frame, encode},
    model::Model,
};
use push0_domain::Timestamp;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

/// Model and feed, which change together.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<State>>);

struct State {
    model: Model,
    feed: Feed,
    /// The newest encoded snapshot, for many clients that start over at once.
    snapshot: Option<(String, Frame)>,
}

impl Shared {
    pub(crate) fn new(epoch: u32) -> Self {
        Self(Arc::new(Mutex::new(State {
            model: Model::default(),
            feed: Feed::new(epoch),
            snapshot: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the model is complete in itself, so a panic elsewhere leaves a usable state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `look` on the model.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Model) -> T) -> T {
        look(&mut self.state().model)
    }

    /// Gives everything that changed to all clients.
    pub(crate) fn flush(&self, now: Timestamp) -> Result<(), serde_json::Error> {
        let state = &mut *self.state();
        let change = state.model.changes(now);
        if change.is_empty() {
            return Ok(());
        }
        state.feed.publish(&change)
    }

    /// Returns the whole state as JSON text, with its id.
    pub(crate) fn snapshot(&self, now: Timestamp) -> Result<(String, String), serde_json::Error> {
        let state = self.state();
        let id = state.feed.id();
        let text = serde_json::to_string(&state.model.snapshot(id.clone(), now))?;
        Ok((id, text))
    }

    /// Returns the events that a client gets first, and those to come.
    pub(crate) fn follow(
        &self,
        last: Option<&str>,
        now: Timestamp,
    ) -> Result<(Vec<Frame>, broadcast::Receiver<Frame>), serde_json::Error> {
        let state = &mut *self.state();
        let (missed, coming) = state.feed.follow(last);
        if let Some(missed) = missed {
            return Ok((missed, coming));
        }
        let id = state.feed.id();
        let frame = match &state.snapshot {
            Some((of, frame)) if *of == id => frame.clone(),
            _ => {
                let text = serde_json::to_string(&state.model.snapshot(id.clone(), now))?;
                let frame = encode(&id, "reset", &text);
                state.snapshot = Some((id, frame.clone()));
                frame
            }
        };
        Ok((vec![frame], coming))
    }

    pub(crate) fn followers(&self) -> usize {
        self.state().feed.followers()
    }
}
