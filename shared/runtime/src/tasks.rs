//! Tasks of the async runtime with a name, whose end is watched: no failure and no panic gets lost.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tracing::Instrument as _;

use crate::{BoxError, Shutdown};

/// The target of the spans that put a task's name on its log lines. They are kept out of the traces:
/// a loop lives as long as the process, and everything in it would be one trace without an end.
pub(crate) const SPAN_TARGET: &str = "push0_runtime::tasks::name";

/// How tasks ended badly.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A task returned an error.
    #[error("task {name} failed")]
    Failed {
        /// The name that the task was spawned with.
        name: &'static str,
        /// What it returned.
        source: BoxError,
    },
    /// A task panicked.
    #[error("task {name} panicked: {message}")]
    Panicked {
        /// The name that the task was spawned with.
        name: &'static str,
        /// The panic's message.
        message: String,
    },
    /// Tasks went on for longer than the grace period after the stop was requested; they were
    /// aborted.
    #[error("tasks did not stop within {grace:?}: {}", names.join(", "))]
    StillRunning {
        /// The names that they were spawned with.
        names: Vec<&'static str>,
        /// How long they were given.
        grace: Duration,
    },
}

/// A group of tasks that live and end together. Clones spawn into the same group; the tasks are
/// aborted when [`run_until`](Self::run_until) has returned.
#[derive(Clone, Debug, Default)]
pub struct TaskGroup(Arc<Mutex<Group>>);

#[derive(Debug, Default)]
struct Group {
    tasks: JoinSet<Result<(), BoxError>>,
    names: HashMap<Id, &'static str>,
    closed: bool,
}

impl TaskGroup {
    /// A group without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task, whose name appears in its log lines and in the error if it fails. Needs the
    /// context of a runtime. A group that has ended drops the task instead.
    pub fn spawn<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let span = tracing::info_span!(target: SPAN_TARGET, parent: None, "tokio_task", name);
        let mut group = self.lock();
        if group.closed {
            tracing::debug!(name, "not started: the group has ended");
            return;
        }
        let handle = group
            .tasks
            .spawn(async move { task.await.map_err(Into::into) }.instrument(span));
        group.names.insert(handle.id(), name);
    }

    /// Waits for the tasks. A task that fails requests the stop of all; then, as when `shutdown` is
    /// requested from elsewhere, the others have `grace` to end before they are aborted.
    ///
    /// Returns when all tasks have ended, requested or not: a group without tasks returns at once.
    ///
    /// # Errors
    /// The first task that failed or panicked, before or during the stop; or those that did not stop
    /// in time.
    pub async fn run_until(&self, shutdown: &Shutdown, grace: Duration) -> Result<(), TaskError> {
        let mut outcome = tokio::select! {
            outcome = self.first_failure() => outcome,
            () = shutdown.requested() => Ok(()),
        };
        if outcome.is_err() {
            shutdown.trigger();
        }
        let drained = tokio::time::timeout(grace, async {
            while !self.is_empty() {
                let later = self.first_failure().await;
                // Only now: what is known must survive the timeout of what is awaited.
                outcome = std::mem::replace(&mut outcome, Ok(())).and(later);
            }
        });
        let in_time = drained.await.is_ok();
        let mut group = self.lock();
        group.closed = true;
        group.tasks.abort_all();
        let mut names: Vec<_> = group.names.values().copied().collect();
        names.sort_unstable();
        if in_time {
            outcome
        } else {
            outcome.and(Err(TaskError::StillRunning { names, grace }))
        }
    }

    /// `Ok` when no task is left.
    async fn first_failure(&self) -> Result<(), TaskError> {
        while let Some((name, ended)) = self.next().await {
            match ended {
                Ok(Ok(())) => tracing::debug!(name, "task ended"),
                Ok(Err(source)) => return Err(TaskError::Failed { name, source }),
                Err(error) if error.is_panic() => {
                    let message = panic_message(error.into_panic().as_ref());
                    return Err(TaskError::Panicked { name, message });
                }
                Err(_aborted) => {}
            }
        }
        Ok(())
    }

    async fn next(&self) -> Option<(&'static str, Result<Result<(), BoxError>, JoinError>)> {
        // Locked for each poll only, so that a task can spawn another while this waits.
        let ended = poll_fn(|context| self.lock().tasks.poll_join_next_with_id(context)).await?;
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let name = self.lock().names.remove(&id).unwrap_or("unnamed");
        Some((name, ended.map(|(_, result)| result)))
    }

    fn is_empty(&self) -> bool {
        self.lock().tasks.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Group> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text of a panic, if it was raised with one.
pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests;
