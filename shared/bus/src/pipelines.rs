//! The pipelines of a deployment: every revision of every definition, and the current revision of each.

use crate::{Bucket, Bus, BusError, Connection, Fact, Facts, ProvisionError};
use futures::{Stream, StreamExt, stream};
use push0_domain::{PipelineId, pipeline::Pipeline};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Definitions read so far, by name and revision. A revision never changes, so entries are never stale.
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

/// A change of the definitions.
#[derive(Clone, Debug)]
pub enum PipelineChange {
    /// A pipeline has a new revision. The revision may not be current yet, or not any more: a pipeline that is
    /// applied and removed within a moment is told of by this change alone, and may have blocks in flight.
    Defined(PipelineId),
    /// A pipeline has this current definition.
    Current(Arc<Pipeline>),
    /// A pipeline was removed.
    Removed(PipelineId),
}

impl PipelineChange {
    /// Reads a changed fact; `None` if the key names no pipeline.
    fn of(fact: Fact<Pipeline>) -> Option<Self> {
        let (name, revision) = fact.key.rsplit_once('.')?;
        let name = name.parse().ok()?;
        Some(match fact.value {
            _ if revision != CURRENT => Self::Defined(name),
            Some(definition) => Self::Current(Arc::new(definition)),
            None => Self::Removed(name),
        })
    }
}

const CURRENT: &str = "current";

impl Pipelines {
    /// Binds to the bucket of definitions.
    pub async fn bind(bus: &Bus) -> Result<Self, BusError> {
        Ok(Self {
            bus: bus.clone(),
            facts: bus.facts(Bucket::Pipelines).await?,
            seen: Arc::default(),
        })
    }

    /// Makes `pipeline` the current definition of its name and creates the consumers of its zkVMs. Returns
    /// the revision. Applying an unchanged definition keeps its revision.
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

    /// Returns the newest revision, current or not. A pipeline applied again after its removal continues to
    /// count from its last revision.
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

    /// Removes a pipeline: no more blocks are ingested for it. Blocks in flight continue.
    pub async fn remove(&self, name: &PipelineId) -> Result<(), BusError> {
        self.facts.delete(&format!("{name}.{CURRENT}")).await
    }

    /// Returns the current definition of every pipeline.
    pub async fn current(&self) -> Result<Vec<Arc<Pipeline>>, BusError> {
        let all = self.facts.list(&format!("*.{CURRENT}")).await?;
        Ok(all
            .into_iter()
            .filter_map(|fact| fact.value)
            .map(Arc::new)
            .collect())
    }

    /// Returns the current definition of a pipeline, `None` if there is none.
    pub async fn current_of(&self, name: &PipelineId) -> Result<Option<Arc<Pipeline>>, BusError> {
        let fact = self.facts.get(&format!("{name}.{CURRENT}")).await?;
        Ok(fact.and_then(|f| f.value).map(Arc::new))
    }

    /// Returns a revision of a definition, `None` if it was never applied.
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

    /// Returns a revision if it was read before, for decisions that cannot wait for the broker.
    pub fn cached(&self, name: &PipelineId, revision: u32) -> Option<Arc<Pipeline>> {
        self.cache().get(&(name.clone(), revision)).cloned()
    }

    /// Removes a pipeline's definitions from memory, once the pipeline has no more work.
    pub fn forget(&self, name: &PipelineId) {
        self.cache().retain(|(known, _), _| known != name);
    }

    /// Returns the current definition of every pipeline, and the changes since as they come. The changes end with
    /// [`BusError::Interrupted`] when some may have been missed; the caller then starts over.
    pub async fn watch(
        &self,
    ) -> Result<
        (
            Vec<Arc<Pipeline>>,
            impl Stream<Item = Result<PipelineChange, BusError>> + Send + Unpin + 'static,
        ),
        BusError,
    > {
        let mut connection = self.bus.connection();
        let seen = connection.borrow_and_update().interruptions;
        let newest = self.facts.newest().await?;
        let current = self.current().await?;
        let changes = self.facts.changes("*.*", newest).await?;
        let interrupted = async move {
            let is_interrupted = |now: &Connection| !now.up || now.interruptions != seen;
            let _ = connection.wait_for(is_interrupted).await;
        };
        let ended = stream::once(async { Err(BusError::Interrupted) });
        let changes = changes.take_until(Box::pin(interrupted)).chain(ended);
        let changes = changes.filter_map(async |fact| fact.map(PipelineChange::of).transpose());
        Ok((current, Box::pin(changes)))
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Revisions> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason why a pipeline was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The broker was unreachable or refused an operation.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A consumer could not be created.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
}
