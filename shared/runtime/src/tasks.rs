//! Named tasks of the async runtime whose end is observed, so that no failure and no panic is lost.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tracing::Instrument as _;

use crate::{BoxError, Shutdown};

/// Target of the spans that put a task's name on its log lines. Traces exclude these spans: a loop lives
/// as long as the process, and everything inside it would become one trace without an end.
pub(crate) const SPAN_TARGET: &str = "push0_runtime::tasks::name";

/// Reasons why a group of tasks failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A task returned an error.
    #[error("task {name} failed")]
    Failed {
        /// The name given to [`TaskGroup::spawn`].
        name: &'static str,
        /// The error returned by the task.
        source: BoxError,
    },
    /// A task panicked.
    #[error("task {name} panicked: {message}")]
    Panicked {
        /// The name given to [`TaskGroup::spawn`].
        name: &'static str,
        /// The text of the panic, or `no message` for a panic without text.
        message: String,
    },
    /// Tasks still ran at the end of the grace period after the stop request. The group aborted them.
    #[error("tasks did not stop within {grace:?}: {}", names.join(", "))]
    StillRunning {
        /// Names of the aborted tasks, sorted.
        names: Vec<&'static str>,
        /// Length of the grace period.
        grace: Duration,
    },
}

/// A group of tasks that live and end together. Clones spawn into the same group.
/// [`run_until`](Self::run_until) aborts the remaining tasks before returning.
#[derive(Clone, Debug, Default)]
pub struct TaskGroup(Arc<Mutex<Group>>);

#[derive(Debug, Default)]
struct Group {
    tasks: JoinSet<Result<(), BoxError>>,
    names: HashMap<Id, &'static str>,
    closed: bool,
}

impl TaskGroup {
    /// Creates a group without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task. The name appears in the task's log lines and in the error if the task fails. Needs
    /// the context of a runtime. A group that has ended drops the task instead.
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

    /// Waits for the tasks. A task that fails requests the stop of all others. After this request,
    /// or one made elsewhere through `shutdown`, the remaining tasks have `grace` to end before
    /// they are aborted.
    ///
    /// Returns when all tasks have ended, even without a stop request: a group without tasks
    /// returns at once.
    ///
    /// # Errors
    /// The first task that failed or panicked, before or during the stop; otherwise the tasks still
    /// running at the end of the grace period.
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
                // `outcome` is taken only after the await, so that a timeout during the await does not
                // lose an earlier failure.
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

    /// Waits for the next failure. Returns `Ok` when no task is left.
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
        // The lock is held only during each poll, so that a running task can spawn another one meanwhile.
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

/// Returns the text of a panic, or `no message` if the payload is not text.
pub fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests;
