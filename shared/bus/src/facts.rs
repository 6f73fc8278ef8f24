//! Facts: small durable values by key, with compare-and-set. Written as JSON, for people with a
//! NATS client.

use crate::{Bus, BusError};
use async_nats::jetstream::kv::{self, Operation};
use futures::StreamExt;
use push0_domain::{
    Timestamp,
    codec::{self, Encoding},
};
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;

/// The buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// `<pipeline>.<revision>` and `<pipeline>.current`: definitions.
    Pipelines,
    /// `<pipeline>.<block key>`: what the ingester saw. The trusted side of every proof's statement.
    Blocks,
    /// `leader.…`, `cursor.…`, `quarantine.…`: what services must remember.
    State,
}

impl Bucket {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pipelines, Self::Blocks, Self::State];

    /// Its name on the broker.
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
    bucket: Bucket,
    store: kv::Store,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Facts<T> {
    fn clone(&self) -> Self {
        Self {
            bucket: self.bucket,
            store: self.store.clone(),
            value: PhantomData,
        }
    }
}

/// A stored fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact<T> {
    /// Its key.
    pub key: String,
    /// Its value; none if it was deleted.
    pub value: Option<T>,
    /// The revision of the key, for compare-and-set.
    pub revision: u64,
    /// When the broker had stored it.
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

    /// The fact under a key, if there ever was one.
    pub async fn get(&self, key: &str) -> Result<Option<Fact<T>>, BusError> {
        let entry = self
            .store
            .entry(key)
            .await
            .map_err(|e| BusError::unavailable(self.what(key), e))?;
        entry.map(|entry| self.read(entry)).transpose()
    }

    /// Sets it.
    pub async fn put(&self, key: &str, value: &T) -> Result<u64, BusError> {
        let bytes = self.write(key, value)?;
        self.store
            .put(key, bytes)
            .await
            .map_err(|e| BusError::unavailable(self.what(key), e))
    }

    /// Sets it if its revision is still this one (0: if there is none). Returns the new revision,
    /// or none if somebody else was faster.
    pub async fn swap(&self, key: &str, value: &T, revision: u64) -> Result<Option<u64>, BusError> {
        let bytes = self.write(key, value)?;
        match self.store.update(key, bytes, revision).await {
            Ok(revision) => Ok(Some(revision)),
            Err(e) if e.kind() == kv::UpdateErrorKind::WrongLastRevision => Ok(None),
            Err(e) => Err(BusError::unavailable(self.what(key), e)),
        }
    }

    /// Removes it; nothing happens if it is not there.
    pub async fn delete(&self, key: &str) -> Result<(), BusError> {
        self.store
            .purge(key)
            .await
            .map_err(|e| BusError::unavailable(self.what(key), e))
    }

    /// The keys that match (`a.*`, `>`), as they are now.
    pub async fn keys(&self, filter: &str) -> Result<Vec<String>, BusError> {
        let failed = |e: &dyn std::fmt::Display| BusError::unavailable(self.what(filter), e);
        let mut keys = self.store.keys().await.map_err(|e| failed(&e))?;
        let mut found = Vec::new();
        while let Some(key) = keys.next().await {
            found.push(key.map_err(|e| failed(&e))?);
        }
        found.retain(|key| matches(filter, key));
        found.sort();
        Ok(found)
    }

    /// All facts whose key matches (`a.*`, `>`), as they are now.
    pub async fn list(&self, filter: &str) -> Result<Vec<Fact<T>>, BusError> {
        let mut facts = Vec::new();
        for key in self.keys(filter).await? {
            facts.extend(self.get(&key).await?);
        }
        Ok(facts)
    }

    /// All facts whose key matches, now and whenever they change.
    pub async fn watch(
        &self,
        filter: &str,
    ) -> Result<impl futures::Stream<Item = Result<Fact<T>, BusError>> + Send + Unpin + use<T>, BusError>
    where
        T: 'static,
    {
        let this = self.clone();
        let watch = self
            .store
            .watch_with_history(filter)
            .await
            .map_err(|e| BusError::unavailable(self.what(filter), e))?;
        Ok(watch.map(move |entry| {
            let entry = entry.map_err(|e| BusError::unavailable(this.bucket.name(), e))?;
            this.read(entry)
        }))
    }
}

/// Whether a key matches a filter of tokens, `*` and a final `>`.
fn matches(filter: &str, key: &str) -> bool {
    let mut tokens = key.split('.');
    for wanted in filter.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn filters_match_whole_tokens() {
        assert!(
            matches(">", "a.b") && matches("a.>", "a.b.c") && matches("a.*", "a.b") && matches("a.b", "a.b")
        );
        assert!(
            !matches("a.*", "a.b.c") && !matches("a.>", "a") && !matches("a", "ab") && !matches("a.b", "a")
        );
    }
}
