//! Facts: small durable values by key, with compare-and-set. Values are written as JSON, readable for people
//! with a NATS client.
//!
//! Reads go to the leader of the bucket's stream: another copy may lag, and the caller would believe an old
//! value or a "not found". Only [`Facts::find`] asks any copy, for facts that never change.

use crate::{Bus, BusError, Unreadable, inspect::stored_at, leaderless::refuse_without_leader, publish};
use async_nats::jetstream::{
    self,
    kv::{self, Operation},
    message::StreamMessage,
    stream::{DirectGetErrorKind, LastRawMessageErrorKind},
};
use futures::TryStreamExt;
use push0_domain::{
    Timestamp,
    codec::{self, CodecError, Encoding},
};
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;

mod changes;

/// The key-value buckets of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Pipeline definitions, under `<pipeline>.<revision>` and `<pipeline>.current`.
    Pipelines,
    /// Blocks as the ingester saw them, under [`push0_domain::subject::facts::known_block`]. The statement of every
    /// proof is checked against these facts.
    Blocks,
    /// State that services must remember, under `leader.*`, `cursor.*`, `quarantine.*` and `held.*`.
    State,
    /// The keys of the seals of task headers, under `keys`. Only those may read it that seal or compare seals.
    Seals,
}

impl Bucket {
    /// Every bucket of a deployment.
    pub const ALL: [Self; 4] = [Self::Pipelines, Self::Blocks, Self::State, Self::Seals];

    /// Returns the bucket's name on the broker.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pipelines => "push0_pipelines",
            Self::Blocks => "push0_blocks",
            Self::State => "push0_state",
            Self::Seals => "push0_seals",
        }
    }

    /// Returns the purpose of the bucket, for the broker's own command.
    pub fn description(self) -> &'static str {
        match self {
            Self::Pipelines => "Definitions of pipelines, every revision: `push0 pipeline list`",
            Self::Blocks => "Facts of blocks as the ingester saw them; proofs are checked against these",
            Self::State => "Leaders, cursors, quarantines and held queues: what services must remember",
            Self::Seals => "Keys of the seals of task headers, secret",
        }
    }
}

/// A bucket of facts of one type.
pub struct Facts<T> {
    bus: Bus,
    bucket: Bucket,
    store: kv::Store,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Facts<T> {
    fn clone(&self) -> Self {
        Self {
            bus: self.bus.clone(),
            bucket: self.bucket,
            store: self.store.clone(),
            value: PhantomData,
        }
    }
}

/// A stored fact, or the mark of a deleted one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact<T> {
    /// The fact's key.
    pub key: String,
    /// The fact's value. `None` if the fact was deleted.
    pub value: Option<T>,
    /// The revision of the key, for compare-and-set.
    pub revision: u64,
    /// The time at which the broker stored this revision.
    pub stored_at: Timestamp,
}

impl Bus {
    /// Binds to a bucket.
    pub async fn facts<T: Serialize + DeserializeOwned>(&self, bucket: Bucket) -> Result<Facts<T>, BusError> {
        let store = self
            .jetstream
            .get_key_value(bucket.name())
            .await
            .map_err(|e| BusError::unavailable(bucket.name(), e))?;
        Ok(Facts {
            bus: self.clone(),
            bucket,
            store,
            value: PhantomData,
        })
    }
}

impl<T: Serialize + DeserializeOwned> Facts<T> {
    fn what(&self, key: &str) -> String {
        format!("{}/{key}", self.bucket.name())
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket.name())
    }

    fn key<'a>(&self, message: &'a StreamMessage) -> &'a str {
        let prefix = self.subject("");
        message.subject.strip_prefix(&prefix).unwrap_or(&message.subject)
    }

    fn read(&self, message: &StreamMessage) -> Result<Fact<T>, BusError> {
        self.decode(message).map_err(|source| BusError::Corrupt {
            what: self.what(self.key(message)),
            source,
        })
    }

    fn decode(&self, message: &StreamMessage) -> Result<Fact<T>, CodecError> {
        let value = match operation(message) {
            Operation::Put => Some(codec::decode(&message.payload, Encoding::Json)?),
            Operation::Delete | Operation::Purge => None,
        };
        Ok(Fact {
            key: self.key(message).to_owned(),
            value,
            revision: message.sequence,
            stored_at: stored_at(message),
        })
    }

    fn write(&self, key: &str, value: &T) -> Result<bytes::Bytes, BusError> {
        let written = codec::encode(value, Encoding::Json);
        Ok(written
            .map_err(|source| BusError::Corrupt {
                what: self.what(key),
                source,
            })?
            .into())
    }

    /// Returns the fact under a key, `None` if the key was never set. A deleted fact has no value. With wildcards
    /// in `key`, returns the matching fact that was written last.
    pub async fn get(&self, key: &str) -> Result<Option<Fact<T>>, BusError> {
        let subject = self.subject(key);
        match self.store.stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => self.read(&message).map(Some),
            Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(e) => Err(BusError::unavailable(self.what(key), e)),
        }
    }

    /// Returns a fact written once and never changed. Any copy of the bucket may answer, but only the
    /// leader's word makes the fact missing.
    pub async fn find(&self, key: &str) -> Result<Option<Fact<T>>, BusError> {
        let subject = self.subject(key);
        match self.store.stream.direct_get_last_for_subject(subject).await {
            Ok(message) => self.read(&message).map(Some),
            Err(e) if e.kind() == DirectGetErrorKind::NotFound => self.get(key).await,
            Err(e) => Err(BusError::unavailable(self.what(key), e)),
        }
    }

    /// Sets a fact. Returns its new revision.
    pub async fn put(&self, key: &str, value: &T) -> Result<u64, BusError> {
        let bytes = self.write(key, value)?;
        self.store
            .put(key, bytes)
            .await
            .map_err(|e| BusError::unavailable(self.what(key), e))
    }

    /// Sets a fact if its revision is still `revision`; 0 means that the key was never set. Returns the new
    /// revision, or `None` if another process has changed the fact.
    pub async fn swap(&self, key: &str, value: &T, revision: u64) -> Result<Option<u64>, BusError> {
        let bytes = self.write(key, value)?;
        match self.store.update(key, bytes, revision).await {
            Ok(revision) => Ok(Some(revision)),
            Err(e) if is_overtaken(&e) => Ok(None),
            Err(e) => Err(BusError::unavailable(self.what(key), e)),
        }
    }

    /// Removes a fact. Not an error if there is none.
    pub async fn delete(&self, key: &str) -> Result<(), BusError> {
        self.store
            .purge(key)
            .await
            .map_err(|e| BusError::unavailable(self.what(key), e))
    }

    /// Removes a fact if its revision is still `revision`.
    pub async fn delete_at(&self, key: &str, revision: u64) -> Result<(), BusError> {
        let purged = self.store.purge_expect_revision(key, Some(revision)).await;
        purged.map_err(|e| BusError::unavailable(self.what(key), e))
    }

    /// Returns the facts whose key matches `filter` (such as `a.*` or `>`), sorted by key. Each fact costs a
    /// request, so the filter should match few facts.
    pub async fn list(&self, filter: &str) -> Result<Vec<Fact<T>>, BusError> {
        let mut facts = self.first(filter, usize::MAX).await?;
        facts.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(facts)
    }

    /// Returns at most `limit` facts whose key matches, oldest first.
    pub async fn first(&self, filter: &str, limit: usize) -> Result<Vec<Fact<T>>, BusError> {
        let subject = self.subject(filter);
        let mut facts = Vec::new();
        let mut from = 1;
        while facts.len() < limit {
            let Some(entry) = self.next_entry(&subject, from).await? else {
                break;
            };
            from = entry.sequence + 1;
            let fact = self.read(&entry)?;
            facts.extend(Some(fact).filter(|fact| fact.value.is_some()));
        }
        Ok(facts)
    }

    /// Returns the readable facts whose key matches, sorted by key, and the unreadable ones.
    pub async fn sorted(&self, filter: &str) -> Result<(Vec<Fact<T>>, Vec<Unreadable>), BusError> {
        let subject = self.subject(filter);
        let (mut facts, mut unreadable, mut from) = (Vec::new(), Vec::new(), 1);
        while let Some(message) = self.next_entry(&subject, from).await? {
            from = message.sequence + 1;
            match self.decode(&message) {
                Ok(fact) => facts.extend(Some(fact).filter(|fact| fact.value.is_some())),
                Err(reason) => {
                    unreadable.push(Unreadable::new(self.key(&message).to_owned(), &message, reason));
                }
            }
        }
        facts.sort_by(|a, b| a.key.cmp(&b.key));
        Ok((facts, unreadable))
    }

    /// Returns the readable facts whose key matches, sorted by key, and logs the unreadable ones. For facts whose
    /// loss costs less than the work that would stand still for them.
    pub async fn readable(&self, filter: &str) -> Result<Vec<Fact<T>>, BusError> {
        let (facts, unreadable) = self.sorted(filter).await?;
        for Unreadable { name, reason, .. } in unreadable {
            tracing::warn!(fact = self.what(&name), %reason, "passed over an unreadable fact: `push0 repair` mends it");
        }
        Ok(facts)
    }

    /// Returns the fact under a key like [`Self::get`], or the revision of an unreadable one.
    pub async fn look(&self, key: &str) -> Result<Option<Result<Fact<T>, u64>>, BusError> {
        let subject = self.subject(key);
        match self.store.stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Some(self.decode(&message).map_err(|_| message.sequence))),
            Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(e) => Err(BusError::unavailable(self.what(key), e)),
        }
    }

    /// Returns the keys that match, those of deleted facts included.
    pub async fn keys(&self, filter: &str) -> Result<Vec<String>, BusError> {
        let failed = |e: &dyn std::fmt::Display| BusError::unavailable(self.bucket.name(), e);
        let subjects = self.store.stream.info_with_subjects(self.subject(filter)).await;
        let subjects = subjects.map_err(|e| failed(&e))?;
        refuse_without_leader(self.bucket.name(), subjects.info.cluster.as_ref())?;
        let prefix = self.subject("");
        let keys =
            subjects.map_ok(|(subject, _)| subject.strip_prefix(&prefix).unwrap_or(&subject).to_owned());
        keys.try_collect().await.map_err(|e| failed(&e))
    }

    /// Returns the first fact whose key matches, from this revision on. A deleted fact has no value.
    pub async fn next(&self, filter: &str, from: u64) -> Result<Option<Fact<T>>, BusError> {
        let entry = self.next_entry(&self.subject(filter), from).await?;
        entry.map(|entry| self.read(&entry)).transpose()
    }

    /// Removes all facts whose key matches, up to and including a revision, and leaves no trace of them.
    pub async fn erase(&self, filter: &str, revision: u64) -> Result<(), BusError> {
        let purge = self.store.stream.purge().filter(self.subject(filter));
        let purged = purge.sequence(revision + 1).await;
        purged
            .map(|_| ())
            .map_err(|e| BusError::unavailable(self.bucket.name(), e))
    }

    /// Returns the newest revision in the bucket; 0 if the bucket never had a fact.
    pub async fn newest(&self) -> Result<u64, BusError> {
        let info = self.store.stream.get_info().await;
        let info = info.map_err(|e| BusError::unavailable(self.bucket.name(), e))?;
        refuse_without_leader(self.bucket.name(), info.cluster.as_ref())?;
        Ok(info.state.last_sequence)
    }

    /// Returns the first entry of a subject (wildcards allowed) at or after a revision.
    async fn next_entry(&self, subject: &str, from: u64) -> Result<Option<StreamMessage>, BusError> {
        let stream = &self.store.stream;
        match stream.get_first_raw_message_by_subject(subject, from).await {
            Ok(message) => Ok(Some(message)),
            Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(e) => Err(BusError::unavailable(subject, e)),
        }
    }
}

/// Returns the operation of a stored message on its key. Deletions and expiries are messages without a value.
fn operation(message: &StreamMessage) -> Operation {
    let header = |name: &str| message.headers.get(name).map(|value| value.as_str().to_owned());
    match header("KV-Operation").as_deref() {
        Some("DEL") => Operation::Delete,
        Some("PURGE") => Operation::Purge,
        _ if header("Nats-Marker-Reason").is_some() => Operation::Purge,
        _ => Operation::Put,
    }
}

/// Returns whether an update was refused because another process has changed the fact. The client's own kind of error
/// knows one of the broker's codes for that.
fn is_overtaken(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut refusals = causes.filter_map(|cause| cause.downcast_ref::<jetstream::Error>());
    refusals.any(|refusal| publish::is_overtaken(refusal.error_code().0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed getting entry")]
    struct Refused(#[source] jetstream::Error);

    #[test]
    fn a_lost_race_is_known_by_each_of_its_codes() {
        let with = |code: u64| {
            let body =
                serde_json::json!({ "code": 400, "err_code": code, "description": "wrong last sequence" });
            Refused(serde_json::from_value(body).expect("an error of the broker"))
        };
        for code in [10070, 10071, 10164] {
            assert!(is_overtaken(&with(code)), "{code}");
        }
        assert!(!is_overtaken(&with(10077)), "a full stream is no race");
    }
}
