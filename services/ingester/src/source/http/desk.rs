//! Registry of the pipelines that take submissions, and of those led by this process.

use super::submission::Submission;
use push0_domain::PipelineId;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::mpsc;

/// Pipelines whose blocks are posted, each with the channel to its leading task if this process leads.
/// Clones share the registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desk(Arc<Mutex<BTreeMap<PipelineId, Option<mpsc::Sender<Submission>>>>>);

/// Recipient of a pipeline's submissions.
pub(super) enum Taker {
    /// This process takes the submissions.
    Here(mpsc::Sender<Submission>),
    /// Another process takes the submissions, or none yet.
    Elsewhere,
    /// No such pipeline exists, or its blocks come from another source.
    Unknown,
}

/// Registration of this process for a pipeline's submissions, until dropped.
pub(super) struct Open {
    desk: Desk,
    pipeline: PipelineId,
    sender: mpsc::Sender<Submission>,
}

impl Desk {
    /// Sets whether blocks are posted to a pipeline.
    pub(crate) fn define(&self, pipeline: &PipelineId, posted: bool) {
        if posted {
            self.lock().entry(pipeline.clone()).or_default();
        } else {
            self.lock().remove(pipeline);
        }
    }

    pub(super) fn open(&self, pipeline: &PipelineId, sender: mpsc::Sender<Submission>) -> Open {
        if let Some(taker) = self.lock().get_mut(pipeline) {
            *taker = Some(sender.clone());
        }
        Open {
            desk: self.clone(),
            pipeline: pipeline.clone(),
            sender,
        }
    }

    pub(super) fn taker(&self, pipeline: &PipelineId) -> Taker {
        match self.lock().get(pipeline) {
            Some(Some(sender)) => Taker::Here(sender.clone()),
            Some(None) => Taker::Elsewhere,
            None => Taker::Unknown,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PipelineId, Option<mpsc::Sender<Submission>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // A successor may have registered already, so only this registration's own entry is removed.
        if let Some(taker) = self.desk.lock().get_mut(&self.pipeline)
            && taker
                .as_ref()
                .is_some_and(|there| there.same_channel(&self.sender))
        {
            *taker = None;
        }
    }
}
