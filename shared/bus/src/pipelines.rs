//! The pipelines of a deployment: every revision of every definition, and the current revision of each.

use crate::{Bucket, Bus, BusError, Connection, Fact, Facts, ProvisionError, Unreadable};
use futures::{Stream, StreamExt, stream};
use push0_domain::{PipelineId, pipeline::Pipeline};
use std::{
    collections::{BTreeSet, HashMap},
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
    /// The current definition of a pipeline cannot be read, for this reason.
    Unreadable(PipelineId, String),
}

impl PipelineChange {
    /// Reads a changed fact; `None` if the key names no pipeline.
    fn of(fact: Result<Fact<Pipeline>, BusError>) -> Option<Result<Self, BusError>> {
        match fact {
            Ok(fact) => Self::read(fact).map(Ok),
            Err(BusError::Corrupt { what, source }) => {
                let (name, revision) = what.rsplit_once('/')?.1.rsplit_once('.')?;
                let name = name.parse().ok()?;
                Some(Ok(if revision == CURRENT {
                    Self::Unreadable(name, format!("{what}: {source}"))
                } else {
                    Self::Defined(name)
                }))
            }
            Err(error) => Some(Err(error)),
        }
    }

    fn read(fact: Fact<Pipeline>) -> Option<Self> {
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
    /// the revision. Applying an unchanged definition keeps its revision. A definition that cannot be read is
    /// overwritten.
    pub async fn apply(&self, mut pipeline: Pipeline) -> Result<u32, ApplyError> {
        for zkvm in pipeline.zkvms() {
            self.bus.provision_zkvm(&zkvm).await?;
        }
        loop {
            let key = format!("{}.{CURRENT}", pipeline.name);
            let (revision, last) = match self.facts.look(&key).await? {
                Some(Ok(fact)) => (fact.revision, fact.value),
                Some(Err(unreadable)) => (unreadable, None),
                None => (0, None),
            };
            let (highest, last) = match last {
                Some(last) => (last.revision, Some(last)),
                None => self.newest(&pipeline.name).await?,
            };
            pipeline.revision = highest.max(1);
            let unchanged = last.as_ref() == Some(&pipeline);
            if !unchanged {
                pipeline.revision = highest + 1;
            }
            self.facts
                .put(&format!("{}.{}", pipeline.name, pipeline.revision), &pipeline)
                .await?;
            if self.facts.swap(&key, &pipeline, revision).await?.is_some() {
                return Ok(pipeline.revision);
            }
        }
    }

    /// Returns the newest revision of a pipeline, current or not.
    pub async fn newest_of(&self, name: &PipelineId) -> Result<Option<Pipeline>, BusError> {
        Ok(self.newest(name).await?.1)
    }

    /// Returns the highest number of a revision, 0 if there is none, and the newest readable revision, current or
    /// not. A pipeline applied again after its removal continues to count from its last revision.
    async fn newest(&self, name: &PipelineId) -> Result<(u32, Option<Pipeline>), BusError> {
        let (all, unreadable) = self.facts.sorted(&format!("{name}.*")).await?;
        let number = |fact: &Unreadable| fact.name.rsplit_once('.').and_then(|(_, n)| n.parse().ok());
        let unread = unreadable.iter().filter_map(number).max().unwrap_or(0);
        let newest = all.into_iter().filter_map(|f| f.value).max_by_key(|p| p.revision);
        Ok((newest.as_ref().map_or(0, |p| p.revision).max(unread), newest))
    }

    /// Removes a pipeline: no more blocks are ingested for it. Blocks in flight continue.
    pub async fn remove(&self, name: &PipelineId) -> Result<(), BusError> {
        self.facts.delete(&format!("{name}.{CURRENT}")).await
    }

    /// Returns the names of all pipelines that were ever defined.
    pub async fn names(&self) -> Result<Vec<PipelineId>, BusError> {
        let keys = self.facts.keys("*.*").await?;
        let names = keys.iter().filter_map(|key| key.rsplit_once('.'));
        let names: BTreeSet<PipelineId> = names.filter_map(|(name, _)| name.parse().ok()).collect();
        Ok(names.into_iter().collect())
    }

    /// Returns the current definition of every pipeline whose definition can be read.
    pub async fn current(&self) -> Result<Vec<Arc<Pipeline>>, BusError> {
        Ok(self.all().await?.0)
    }

    /// Returns the current definition of every pipeline, and the pipelines whose definition cannot be read, with
    /// the reason.
    pub async fn all(&self) -> Result<(Vec<Arc<Pipeline>>, Vec<(PipelineId, String)>), BusError> {
        let (all, unreadable) = self.facts.sorted(&format!("*.{CURRENT}")).await?;
        let readable = all.into_iter().filter_map(|fact| fact.value).map(Arc::new);
        let named = |fact: Unreadable| {
            let name = fact.name.rsplit_once('.')?.0.parse().ok()?;
            let reason = format!("{}/{}: {}", Bucket::Pipelines.name(), fact.name, fact.reason);
            Some((name, reason))
        };
        Ok((
            readable.collect(),
            unreadable.into_iter().filter_map(named).collect(),
        ))
    }

    /// Returns the removed pipelines, which have definitions and no current one.
    pub async fn removed(&self) -> Result<Vec<PipelineId>, BusError> {
        let (current, unreadable) = self.all().await?;
        let is_current = |name: &PipelineId| {
            current.iter().any(|p| p.name == *name) || unreadable.iter().any(|(there, _)| there == name)
        };
        // Revisions are kept for ever.
        let names = self.names().await?;
        Ok(names.into_iter().filter(|name| !is_current(name)).collect())
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

    /// Returns a revision that a message names, like [`Self::revision`]. An applied revision that is gone is an error:
    /// its blocks are not at fault and wait until an operator puts the revision back.
    pub async fn named(&self, name: &PipelineId, revision: u32) -> Result<Option<Arc<Pipeline>>, BusError> {
        let found = self.revision(name, revision).await?;
        if found.is_none() && self.highest(name).await? >= revision {
            return Err(BusError::LostRevision {
                pipeline: name.clone(),
                revision,
            });
        }
        Ok(found)
    }

    /// Returns the highest number of a revision that was ever applied, as far as the definitions tell: the current
    /// definition counts too, and one that cannot be read may be of any revision.
    async fn highest(&self, name: &PipelineId) -> Result<u32, BusError> {
        let (all, unreadable) = self.facts.sorted(&format!("{name}.*")).await?;
        let readable = all.into_iter().filter_map(|fact| fact.value).map(|p| p.revision);
        let number = |fact: &Unreadable| match fact.name.rsplit_once('.')?.1 {
            CURRENT => Some(u32::MAX),
            number => number.parse().ok(),
        };
        Ok(readable
            .chain(unreadable.iter().filter_map(number))
            .max()
            .unwrap_or(0))
    }

    /// Puts a lost or unreadable revision back. Blocks that name the revision go on by this definition.
    pub async fn put_back(&self, mut pipeline: Pipeline, revision: u32) -> Result<(), ApplyError> {
        let name = pipeline.name.clone();
        for zkvm in pipeline.zkvms() {
            self.bus.provision_zkvm(&zkvm).await?;
        }
        pipeline.revision = revision;
        let key = format!("{name}.{revision}");
        let there = match self.facts.look(&key).await? {
            Some(Ok(fact)) if fact.value.as_ref() == Some(&pipeline) => return Ok(()),
            Some(Ok(fact)) if fact.value.is_some() => {
                return Err(ApplyError::NotLost { name, revision });
            }
            Some(Ok(fact)) => fact.revision,
            Some(Err(unreadable)) => unreadable,
            None => 0,
        };
        match self.facts.swap(&key, &pipeline, there).await? {
            Some(_) => Ok(()),
            None => Err(ApplyError::NotLost { name, revision }),
        }
    }

    /// Returns a revision if it was read before, for decisions that cannot wait for the broker.
    pub fn cached(&self, name: &PipelineId, revision: u32) -> Option<Arc<Pipeline>> {
        self.cache().get(&(name.clone(), revision)).cloned()
    }

    /// Removes a pipeline's definitions from memory, once the pipeline has no more work.
    pub fn forget(&self, name: &PipelineId) {
        self.cache().retain(|(known, _), _| known != name);
    }

    /// Returns the current definition of every pipeline, and the changes since as they come, after those whose
    /// definition cannot be read. The changes end with
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
        let (current, unreadable) = self.all().await?;
        let changes = self.facts.changes("*.*", newest).await?;
        let interrupted = async move {
            let is_interrupted = |now: &Connection| !now.up || now.interruptions != seen;
            let _ = connection.wait_for(is_interrupted).await;
        };
        let ended = stream::once(async { Err(BusError::Interrupted) });
        let changes = changes.take_until(Box::pin(interrupted)).chain(ended);
        let changes = changes.filter_map(async |fact| PipelineChange::of(fact));
        let unreadable = unreadable.into_iter();
        let unreadable = unreadable.map(|(name, reason)| Ok(PipelineChange::Unreadable(name, reason)));
        Ok((current, Box::pin(stream::iter(unreadable).chain(changes))))
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Revisions> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason why a definition was not stored.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The revision that is to be put back can be read, and a revision never changes.
    #[error(
        "revision {revision} of pipeline {name} is not lost, and differs from the file: a revision never changes"
    )]
    NotLost {
        /// The pipeline.
        name: PipelineId,
        /// The number of the revision.
        revision: u32,
    },
    /// The broker was unreachable or refused an operation.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A consumer could not be created.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
}
