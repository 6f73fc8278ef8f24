//! Many publishes on their way at once, each with what is to be done when it is stored.

use crate::{Bus, Message, PublishError, Stored};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::time::Duration;

/// Publishes in flight, each with a token of its owner.
///
/// A service that decides in a loop hands its publishes here and goes on; what must wait for the
/// broker's word (acknowledgements above all) waits in the token.
pub struct Outbox<T> {
    bus: Bus,
    budget: Duration,
    in_flight: FuturesUnordered<BoxFuture<'static, (T, Result<Stored, PublishError>)>>,
}

impl<T: Send + 'static> Outbox<T> {
    /// An empty one. A publish that is not stored within `budget` comes back as an error.
    pub fn new(bus: Bus, budget: Duration) -> Self {
        Self {
            bus,
            budget,
            in_flight: FuturesUnordered::new(),
        }
    }

    /// Sends a message.
    pub fn push(&self, message: Message, token: T) {
        let (bus, budget) = (self.bus.clone(), self.budget);
        self.in_flight.push(Box::pin(async move {
            (token, bus.publish_patiently(message, budget).await)
        }));
    }

    /// How many are on their way.
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The next one that was answered. Never returns while none is on its way: for `select!`.
    pub async fn next(&mut self) -> (T, Result<Stored, PublishError>) {
        match self.in_flight.next().await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }
}
