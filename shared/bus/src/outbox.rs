//! Concurrent publishes, each with a token for the work to do once the message is stored.

use crate::{Bus, Message, PublishError, Stored};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::time::Duration;

/// Publishes in flight, each with a token chosen by the caller.
///
/// A service that decides in a loop pushes its publishes here and continues. Work that must wait for the
/// broker's confirmation, above all acknowledgements, goes into the token.
pub struct Outbox<T> {
    bus: Bus,
    budget: Duration,
    in_flight: FuturesUnordered<BoxFuture<'static, (T, Result<Stored, PublishError>)>>,
}

impl<T: Send + 'static> Outbox<T> {
    /// Creates an empty outbox. A publish not stored within `budget` comes back as an error.
    pub fn new(bus: Bus, budget: Duration) -> Self {
        Self {
            bus,
            budget,
            in_flight: FuturesUnordered::new(),
        }
    }

    /// Starts to publish a message. [`Self::next`] returns the token with the outcome.
    pub fn push(&self, message: Message, token: T) {
        let (bus, budget) = (self.bus.clone(), self.budget);
        self.in_flight.push(Box::pin(async move {
            (token, bus.publish_patiently(message, budget).await)
        }));
    }

    /// Returns the number of publishes in flight.
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns whether no publish is in flight.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Returns the next finished publish. Stays pending while none is in flight, so `select!` can poll it.
    pub async fn next(&mut self) -> (T, Result<Stored, PublishError>) {
        match self.in_flight.next().await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }
}
