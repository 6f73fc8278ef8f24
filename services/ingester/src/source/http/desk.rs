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
pub(crate) struct Desk(Arc<Mutex<BTreeMap<PipelineId, Option<Place>>>>);

/// Where this process takes a pipeline's submissions.
#[derive(Debug)]
struct Place {
    sender: mpsc::Sender<Submission>,
    /// Whether the broker has room for the pipeline's blocks.
    has_room: bool,
}

/// Recipient of a pipeline's submissions.
pub(super) enum Taker {
    /// This process takes the submissions.
    Here(mpsc::Sender<Submission>),
    /// This process would take the submissions, but the broker has no room for them.
    Full,
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
            *taker = Some(Place {
                sender: sender.clone(),
                has_room: true,
            });
        }
        Open {
            desk: self.clone(),
            pipeline: pipeline.clone(),
            sender,
        }
    }

    pub(super) fn taker(&self, pipeline: &PipelineId) -> Taker {
        match self.lock().get(pipeline) {
            Some(Some(place)) if place.has_room => Taker::Here(place.sender.clone()),
            Some(Some(_)) => Taker::Full,
            Some(None) => Taker::Elsewhere,
            None => Taker::Unknown,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PipelineId, Option<Place>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Sets whether the broker has room for the pipeline's blocks.
    pub(super) fn has_room(&self, has_room: bool) {
        if let Some(Some(place)) = self.desk.lock().get_mut(&self.pipeline)
            && place.sender.same_channel(&self.sender)
        {
            place.has_room = has_room;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // A successor may have registered already, so only this registration's own entry is removed.
        if let Some(place) = self.desk.lock().get_mut(&self.pipeline)
            && place
                .as_ref()
                .is_some_and(|there| there.sender.same_channel(&self.sender))
        {
            *place = None;
        }
    }
}
