//! The pipelines of a deployment: every revision of every definition, and which one is current.

use crate::{Bucket, Bus, BusError, Connection, Facts, ProvisionError};
use futures::{Stream, StreamExt, stream};
use push0_domain::{PipelineId, pipeline::Pipeline};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Definitions that were read, by name and revision: they never change.
type Revisions = HashMap<(PipelineId, u32), Arc<Pipeline>>;

/// Definitions of pipelines.
///
/// A block keeps the revision it was ingested with, so a revision is never changed or removed.
#[derive(Clone)]
pub struct Pipelines {
    bus: Bus,
    facts: Facts<Pipeline>,
    seen: Arc<Mutex<Revisions>>,
}

/// A pipeline as it stands now.
#[derive(Clone, Debug)]
pub struct PipelineChange {
    /// Which.
    pub name: PipelineId,
    /// Its current definition; none if it was removed.
    pub current: Option<Arc<Pipeline>>,
}

const CURRENT: &str = "current";

impl Pipelines {
    /// Binds to the definitions.
    pub async fn bind(bus: &Bus) -> Result<Self, BusError> {
        Ok(Self {
            bus: bus.clone(),
            facts: bus.facts(Bucket::Pipelines).await?,
            seen: Arc::default(),
        })
    }

    /// Makes this the current definition of its pipeline, and the consumers of its zkVMs. Returns
    /// the revision; the same definition again keeps its revision.
    pub async fn apply(&self, mut pipeline: Pipeline) -> Result<u32, ApplyError> {
        for zkvm in pipeline.zkvms() {
            self.bus.provision_zkvm(&zkvm).await?;
        }
        loop {
            let key = format!("{}.{CURRENT}", pipeline.name);
            let current = self.facts.get(&key).await?;
            let (revision, last) = match current {
                Some(fact) => (
                    fact.revision,
                    self.newest(&pipeline.name, fact.value.as_ref()).await?,
                ),
                None => (0, None),
            };
            pipeline.revision = last.as_ref().map_or(1, |p| p.revision);
            let unchanged = last.as_ref() == Some(&pipeline);
            if !unchanged {
                pipeline.revision = last.map_or(1, |p| p.revision + 1);
            }
            self.facts
                .put(&format!("{}.{}", pipeline.name, pipeline.revision), &pipeline)
                .await?;
            if self.facts.swap(&key, &pipeline, revision).await?.is_some() {
                return Ok(pipeline.revision);
            }
        }
    }

    /// The newest revision, current or not: a pipeline that was removed and comes back goes on counting.
    async fn newest(
        &self,
        name: &PipelineId,
        current: Option<&Pipeline>,
    ) -> Result<Option<Pipeline>, BusError> {
        if let Some(current) = current {
            return Ok(Some(current.clone()));
        }
        let all = self.facts.list(&format!("{name}.*")).await?;
        Ok(all.into_iter().filter_map(|f| f.value).max_by_key(|p| p.revision))
    }

    /// Removes a pipeline: no more blocks are ingested for it; those in flight go on.
    pub async fn remove(&self, name: &PipelineId) -> Result<(), BusError> {
        self.facts.delete(&format!("{name}.{CURRENT}")).await
    }

    /// The current definition of every pipeline.
    pub async fn current(&self) -> Result<Vec<Arc<Pipeline>>, BusError> {
        let all = self.facts.list(&format!("*.{CURRENT}")).await?;
        Ok(all
            .into_iter()
            .filter_map(|fact| fact.value)
            .map(Arc::new)
            .collect())
    }

    /// The current definition of one pipeline.
    pub async fn current_of(&self, name: &PipelineId) -> Result<Option<Arc<Pipeline>>, BusError> {
        let fact = self.facts.get(&format!("{name}.{CURRENT}")).await?;
        Ok(fact.and_then(|f| f.value).map(Arc::new))
    }

    /// One revision of a definition.
    pub async fn revision(
        &self,
        name: &PipelineId,
        revision: u32,
    ) -> Result<Option<Arc<Pipeline>>, BusError> {
        let id = (name.clone(), revision);
        if let Some(seen) = self.cache().get(&id) {
            return Ok(Some(seen.clone()));
        }
        let fact = self.facts.find(&format!("{name}.{revision}")).await?;
        let Some(pipeline) = fact.and_then(|f| f.value).map(Arc::new) else {
            return Ok(None);
        };
        self.cache().insert(id, pipeline.clone());
        Ok(Some(pipeline))
    }

    /// One revision, if it was read before: for decisions that cannot wait.
    pub fn cached(&self, name: &PipelineId, revision: u32) -> Option<Arc<Pipeline>> {
        self.cache().get(&(name.clone(), revision)).cloned()
    }

    /// Lets the definitions of a pipeline go that were read: nobody asks for them any more.
    pub fn forget(&self, name: &PipelineId) {
        self.cache().retain(|(known, _), _| known != name);
    }

    /// The current definition of every pipeline, and each change as it comes. Ends with
    /// [`BusError::Interrupted`] when changes may be missed: whoever follows them begins anew.
    pub async fn watch(
        &self,
    ) -> Result<impl Stream<Item = Result<PipelineChange, BusError>> + Send + Unpin + 'static, BusError> {
        let mut connection = self.bus.connection();
        let seen = connection.borrow_and_update().interruptions;
        let facts = self.facts.watch(&format!("*.{CURRENT}")).await?;
        let interrupted = async move {
            let is_interrupted = |now: &Connection| !now.up || now.interruptions != seen;
            let _ = connection.wait_for(is_interrupted).await;
        };
        let ended = stream::once(async { Err(BusError::Interrupted) });
        let facts = facts.take_until(Box::pin(interrupted)).chain(ended);
        Ok(Box::pin(facts.filter_map(|fact| async move {
            let fact = match fact {
                Ok(fact) => fact,
                Err(error) => return Some(Err(error)),
            };
            let name = fact.key.strip_suffix(CURRENT)?.strip_suffix('.')?.parse().ok()?;
            Some(Ok(PipelineChange {
                name,
                current: fact.value.map(Arc::new),
            }))
        })))
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Revisions> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a pipeline was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The broker was not there.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A consumer could not be made.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
}
