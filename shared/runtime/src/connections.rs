//! The connections of a server, bounded: a new one is always taken, and the oldest idle one makes room for it. So
//! clients that say nothing, or little at a time, keep no other client out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Pause after a failed accept: without free file descriptors, the next accept would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether a connection has a complete request whose answer is not ready. Clones share the mark.
#[derive(Clone, Debug, Default)]
pub struct Busy(Arc<AtomicBool>);

impl Busy {
    /// Marks the connection, until the returned value is dropped.
    pub fn mark(&self) -> BusyMark {
        self.0.store(true, Ordering::Relaxed);
        BusyMark(self.clone())
    }
}

/// The mark of a connection with a complete request.
#[derive(Debug)]
pub struct BusyMark(Busy);

impl Drop for BusyMark {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

/// The open connections of a server. Dropping this value closes them.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    tasks: JoinSet<()>,
    open: VecDeque<(AbortHandle, Busy)>,
}

impl Connections {
    /// Keeps at most `max` connections.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            tasks: JoinSet::new(),
            open: VecDeque::new(),
        }
    }

    /// Accepts connections for ever and serves each with the work that `answer` returns for it.
    pub async fn accept<Work>(
        &mut self,
        listener: &TcpListener,
        mut answer: impl FnMut(TcpStream, Busy) -> Work,
    ) -> Infallible
    where
        Work: Future<Output = ()> + Send + 'static,
    {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let busy = Busy::default();
                    self.admit(busy.clone(), answer(stream, busy));
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection. If there are too many, the oldest one that is not busy is closed; if all are busy, the new
    /// one is.
    fn admit(&mut self, busy: Busy, connection: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(task, _)| !task.is_finished());
        if self.open.len() >= self.max {
            let is_idle = |(_, busy): &(AbortHandle, Busy)| !busy.0.load(Ordering::Relaxed);
            match self
                .open
                .iter()
                .position(is_idle)
                .and_then(|at| self.open.remove(at))
            {
                Some((idle, _)) => idle.abort(),
                None => return,
            }
        }
        self.open.push_back((self.tasks.spawn(connection), busy));
    }

    /// Waits until all connections have ended.
    pub async fn ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
