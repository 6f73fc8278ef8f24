//! Turns of the pipelines of a process to fetch and store a large block: one has its turn at a time, so that the process
//! holds one large block at a time.

use crate::decide::rest::Rest;
use push0_domain::PipelineId;
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout},
};

/// How long a pipeline waits silently.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// How often a pipeline that rests looks whether others want a turn.
const LOOK_EVERY: Duration = Duration::from_millis(100);

static TURNS: Semaphore = Semaphore::const_new(1);
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// The turns of one pipeline.
pub(super) struct Turns {
    since: Instant,
    rest: Option<Rest>,
}

/// The turn of a pipeline, until dropped.
pub(super) struct Turn<'a> {
    turns: &'a mut Turns,
    began: Instant,
    _permit: Option<SemaphorePermit<'static>>,
}

/// A pipeline that waits for its turn, until dropped.
struct Wish;

impl Wish {
    fn new() -> Self {
        WAITING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            rest: None,
        }
    }

    /// Waits for the pipeline's turn.
    pub(super) async fn next(&mut self, pipeline: &PipelineId) -> Turn<'_> {
        let began = Instant::now();
        let permit = {
            let mut waits = std::pin::pin!(self.permit());
            match timeout(SILENT_MAX, &mut waits).await {
                Ok(permit) => permit,
                Err(_) => {
                    tracing::warn!(
                        %pipeline,
                        "waiting for other pipelines of this process: large blocks are fetched and stored one at a time"
                    );
                    let permit = waits.await;
                    let waited_s = began.elapsed().as_secs();
                    tracing::info!(%pipeline, waited_s, "fetching a large block, after a wait for other pipelines");
                    permit
                }
            }
        };
        Turn {
            turns: self,
            began: Instant::now(),
            _permit: permit,
        }
    }

    async fn permit(&self) -> Option<SemaphorePermit<'static>> {
        let others_want = || TURNS.available_permits() == 0 || WAITING.load(Ordering::Relaxed) > 0;
        while let Some(rest) = self.rest
            && !rest.is_over(self.since.elapsed(), others_want())
        {
            sleep(LOOK_EVERY).await;
        }
        let _wish = Wish::new();
        // The semaphore is never closed.
        TURNS.acquire().await.ok()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.rest = Some(Rest {
            ended_at: self.turns.since.elapsed(),
            held: self.began.elapsed(),
        });
    }
}
