//! Who takes submissions: which pipelines there are, and which of them this process leads.

use super::Submission;
use push0_domain::PipelineId;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::mpsc;

/// The pipelines whose blocks are posted. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desk(Arc<Mutex<BTreeMap<PipelineId, Option<mpsc::Sender<Submission>>>>>);

/// Who takes the submissions of a pipeline.
pub(super) enum Taker {
    /// This process.
    Here(mpsc::Sender<Submission>),
    /// Another process, or nobody yet.
    Elsewhere,
    /// There is no such pipeline, or its blocks come from elsewhere.
    Unknown,
}

/// While it exists, this process takes the pipeline's submissions.
pub(super) struct Open {
    desk: Desk,
    pipeline: PipelineId,
    sender: mpsc::Sender<Submission>,
}

impl Desk {
    /// Says whether the blocks of a pipeline are posted.
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
        // A successor may have opened already: only one's own entry is taken away.
        if let Some(taker) = self.desk.lock().get_mut(&self.pipeline)
            && taker
                .as_ref()
                .is_some_and(|there| there.same_channel(&self.sender))
        {
            *taker = None;
        }
    }
}
