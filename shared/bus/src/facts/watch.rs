//! A watch: all facts whose key matches, then each change.
//!
//! A watch has no consumer. It lists the facts, listens to the bucket's subjects, and lists again when a
//! change passes and every [`LOOK_EVERY`]. A consumer would be one more thing to recreate after each fault of a
//! broker, and its recreation can leave an assignment without a consumer behind, which makes a broker of a
//! cluster report itself unhealthy until its restart (nats-server 2.12.8).

use super::{Fact, Facts};
use crate::{BusError, signal::Signals};
use futures::{Stream, stream};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

/// The time between two looks at the bucket without a signal.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The times after a signal at which the watch looks. The signal passes before the leader has stored the change.
const LOOK_AFTER: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(200),
    Duration::from_secs(1),
];

impl<T: Serialize + DeserializeOwned + Send + 'static> Facts<T> {
    /// Yields all facts whose key matches, then each change. Of several changes of one key within a moment the
    /// watch may yield the last only. An unreadable fact is an error, once per revision; the watch goes on.
    pub async fn watch(
        &self,
        filter: &str,
    ) -> Result<impl Stream<Item = Result<Fact<T>, BusError>> + Send + Unpin + use<T>, BusError> {
        let subject = self.subject(filter);
        let signals = self.bus.listen([subject.clone()]).await?;
        let mut watch = Watch {
            facts: self.clone(),
            subject,
            signals,
            seen: BTreeMap::new(),
            found: VecDeque::new(),
            due: VecDeque::new(),
        };
        watch.look().await?;
        Ok(Box::pin(stream::unfold(watch, |mut watch| async {
            let change = watch.next().await;
            Some((change, watch))
        })))
    }
}

/// A watch in progress.
struct Watch<T> {
    facts: Facts<T>,
    /// The subjects of the facts, with wildcards.
    subject: String,
    signals: Signals,
    /// The newest known revision of each key that has a value.
    seen: BTreeMap<String, u64>,
    /// Changes that were found and not yet yielded.
    found: VecDeque<Result<Fact<T>, BusError>>,
    /// The times of the looks that the newest signal asks for.
    due: VecDeque<Instant>,
}

impl<T: Serialize + DeserializeOwned> Watch<T> {
    async fn next(&mut self) -> Result<Fact<T>, BusError> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return found;
            }
            let look_at = self.due.front().copied().unwrap_or(Instant::now() + LOOK_EVERY);
            tokio::select! {
                signal = self.signals.next() => {
                    signal?;
                    // The next look keeps its time, so that signals without a pause cannot put it off for ever.
                    self.due.truncate(1);
                    self.due.extend(LOOK_AFTER.iter().map(|after| Instant::now() + *after));
                }
                () = tokio::time::sleep_until(look_at) => {
                    self.due.pop_front();
                    self.look().await?;
                }
            }
        }
    }

    /// Lists the facts and notes how they differ from the last look.
    async fn look(&mut self) -> Result<(), BusError> {
        let mut gone = std::mem::take(&mut self.seen);
        let mut from = 1;
        while let Some(entry) = self.facts.next_entry(&self.subject, from).await? {
            from = entry.revision + 1;
            let (key, revision) = (entry.key.clone(), entry.revision);
            let known = gone.get(&key).copied();
            let fact = self.facts.read(entry);
            if matches!(&fact, Ok(fact) if fact.value.is_none()) {
                continue;
            }
            gone.remove(&key);
            self.seen.insert(key, revision);
            if known != Some(revision) {
                self.found.push_back(fact);
            }
        }
        let removed = gone.into_iter().map(|(key, revision)| {
            Ok(Fact {
                key,
                value: None,
                revision,
                stored_at: push0_domain::Timestamp::default(),
            })
        });
        self.found.extend(removed);
        Ok(())
    }
}
