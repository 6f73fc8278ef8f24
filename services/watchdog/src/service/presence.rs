//! Asks the broker whether silent processes are still connected.

use crate::unheld::Seat;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use push0_bus::Bus;
use push0_domain::subject;
use std::time::Duration;

/// How long the broker may take to say that a subject has no listener. A listener does not answer, so a question
/// without an answer means a live connection.
const ANSWER_MAX: Duration = Duration::from_millis(200);

/// Questions to the broker that are not answered yet. The core bounds how many are asked.
#[derive(Default)]
pub(super) struct Asking(FuturesUnordered<BoxFuture<'static, (Seat, bool)>>);

impl Asking {
    /// Asks about a process.
    pub(super) fn about(&mut self, bus: &Bus, seat: Seat) {
        let bus = bus.clone();
        let ask = async move {
            let is_gone = bus
                .has_no_listener(subject::presence_of(&seat.0, seat.1), ANSWER_MAX)
                .await;
            (seat, is_gone)
        };
        self.0.push(ask.boxed());
    }

    /// Returns the next answer: the process, and whether its connection has ended. Waits for ever while no
    /// question is open. Cancel safe.
    pub(super) async fn next(&mut self) -> (Seat, bool) {
        match self.0.next().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}
