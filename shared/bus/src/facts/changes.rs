//! The changes of facts, each as it is stored.
//!
//! Following changes takes no consumer. The reader listens to the bucket's subjects, and reads the messages behind
//! the last known revision when one passes and every [`LOOK_EVERY`]. A consumer would be one more thing to recreate
//! after each fault of a broker, and its recreation can leave an assignment without a consumer behind, which makes
//! a broker of a cluster report itself unhealthy until its restart (nats-server 2.12.8).

use super::{Fact, Facts};
use crate::{BusError, signal::Signals};
use futures::{Stream, stream};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// The time between two looks at the bucket without a signal.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The times after a signal at which the reader looks. The signal passes before the leader has stored the change.
const LOOK_AFTER: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(200),
    Duration::from_secs(1),
];

impl<T: Serialize + DeserializeOwned + Send + 'static> Facts<T> {
    /// Yields each change of the facts whose key matches, from the first revision after `after`; a key that changed
    /// several times between two looks yields its last change. An unreadable fact is an error, and the changes go on.
    pub async fn changes(
        &self,
        filter: &str,
        after: u64,
    ) -> Result<impl Stream<Item = Result<Fact<T>, BusError>> + Send + Unpin + use<T>, BusError> {
        let subject = self.subject(filter);
        let signals = self.bus.listen([subject.clone()]).await?;
        let changes = Changes {
            facts: self.clone(),
            subject,
            signals,
            after,
            due: VecDeque::new(),
        };
        Ok(Box::pin(stream::unfold(changes, |mut changes| async {
            let change = changes.next().await;
            Some((change, changes))
        })))
    }
}

/// A reader of changes.
struct Changes<T> {
    facts: Facts<T>,
    /// The subjects of the facts, with wildcards.
    subject: String,
    signals: Signals,
    /// The newest revision that was read.
    after: u64,
    /// The times of the looks that the newest signal asks for.
    due: VecDeque<Instant>,
}

impl<T: Serialize + DeserializeOwned> Changes<T> {
    async fn next(&mut self) -> Result<Fact<T>, BusError> {
        loop {
            if let Some(entry) = self.facts.next_entry(&self.subject, self.after + 1).await? {
                self.after = entry.sequence;
                return self.facts.read(&entry);
            }
            self.wait().await?;
        }
    }

    /// Waits until the next look is due.
    async fn wait(&mut self) -> Result<(), BusError> {
        let idle = Instant::now() + LOOK_EVERY;
        loop {
            let look_at = self.due.front().copied().unwrap_or(idle);
            tokio::select! {
                signal = self.signals.next() => {
                    signal?;
                    // The next look keeps its time, so that signals without a pause cannot put it off for ever.
                    self.due.truncate(1);
                    self.due.extend(LOOK_AFTER.iter().map(|after| Instant::now() + *after));
                }
                () = tokio::time::sleep_until(look_at) => {
                    self.due.pop_front();
                    return Ok(());
                }
            }
        }
    }
}
