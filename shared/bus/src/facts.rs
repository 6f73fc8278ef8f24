//! Facts: small durable values by key, with compare-and-set. Values are written as JSON, readable for people
//! with a NATS client.
//!
//! Reads go to the leader of the bucket's stream: another copy may lag, and the caller would believe an old
//! value or a "not found". Only [`Facts::find`] asks any copy, for facts that never change.

use crate::{Bus, BusError, leaderless::refuse_without_leader};
use async_nats::jetstream::{
    kv::{self, Operation},
    message::StreamMessage,
    stream::{DirectGetErrorKind, LastRawMessageErrorKind},
};
use push0_domain::{
    Timestamp,
    codec::{self, Encoding},
};
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;

mod changes;

/// The key-value buckets of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Pipeline definitions, under `<pipeline>.<revision>` and `<pipeline>.current`.
    Pipelines,
    /// Blocks as the ingester saw them, under [`push0_domain::subject::known_block`]. The statement of every
    /// proof is checked against these facts.
    Blocks,
    /// State that services must remember, under `leader.*`, `cursor.*` and `quarantine.*`.
    State,
}

impl Bucket {
    /// Every bucket of a deployment.
    pub const ALL: [Self; 3] = [Self::Pipelines, Self::Blocks, Self::State];

    /// Returns the bucket's name on the broker.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pipelines => "push0_pipelines",
            Self::Blocks => "push0_blocks",
            Self::State => "push0_state",
        }
    }

    pub(crate) fn expires(self) -> bool {
        self == Self::Blocks
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

    /// Converts a stored message of the bucket's stream to an entry.
    fn entry(&self, message: StreamMessage) -> kv::Entry {
        let prefix = self.subject("");
        let key = message.subject.strip_prefix(&prefix).unwrap_or(&message.subject);
        kv::Entry {
            bucket: self.bucket.name().to_owned(),
            key: key.to_owned(),
            operation: operation(&message),
            value: message.payload,
            revision: message.sequence,
            created: message.time,
            delta: 0,
            seen_current: false,
        }
    }

    fn read(&self, entry: kv::Entry) -> Result<Fact<T>, BusError> {
        let corrupt = |source| BusError::Corrupt {
            what: self.what(&entry.key),
            source,
        };
        let value = match entry.operation {
            Operation::Put => Some(codec::decode(&entry.value, Encoding::Json).map_err(corrupt)?),
            Operation::Delete | Operation::Purge => None,
        };
        Ok(Fact {
            key: entry.key,
            value,
            revision: entry.revision,
            stored_at: Timestamp(
                u64::try_from(entry.created.unix_timestamp_nanos() / 1000).unwrap_or_default(),
            ),
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

    /// Returns the fact under a key, `None` if the key was never set. A deleted fact has no value.
    pub async fn get(&self, key: &str) -> Result<Option<Fact<T>>, BusError> {
        let subject = self.subject(key);
        match self.store.stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => self.read(self.entry(message)).map(Some),
            Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(e) => Err(BusError::unavailable(self.what(key), e)),
        }
    }

    /// Returns a fact written once and never changed. Any copy of the bucket may answer, but only the
    /// leader's word makes the fact missing.
    pub async fn find(&self, key: &str) -> Result<Option<Fact<T>>, BusError> {
        let subject = self.subject(key);
        match self.store.stream.direct_get_last_for_subject(subject).await {
            Ok(message) => self.read(self.entry(message)).map(Some),
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
            Err(e) if e.kind() == kv::UpdateErrorKind::WrongLastRevision => Ok(None),
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
            from = entry.revision + 1;
            let fact = self.read(entry)?;
            facts.extend(Some(fact).filter(|fact| fact.value.is_some()));
        }
        Ok(facts)
    }

    /// Returns the newest revision in the bucket; 0 if the bucket never had a fact.
    pub async fn newest(&self) -> Result<u64, BusError> {
        let info = self.store.stream.get_info().await;
        let info = info.map_err(|e| BusError::unavailable(self.bucket.name(), e))?;
        refuse_without_leader(self.bucket.name(), info.cluster.as_ref())?;
        Ok(info.state.last_sequence)
    }

    /// Returns the first entry of a subject (wildcards allowed) at or after a revision.
    async fn next_entry(&self, subject: &str, from: u64) -> Result<Option<kv::Entry>, BusError> {
        let stream = &self.store.stream;
        match stream.get_first_raw_message_by_subject(subject, from).await {
            Ok(message) => Ok(Some(self.entry(message))),
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
