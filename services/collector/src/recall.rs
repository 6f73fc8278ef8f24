//! Reading messages again that were let go of in memory, and not in the stream.

use crate::state::Handle;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use push0_bus::{Bus, BusError, Kept, Stream};
use push0_domain::message::ResultEvent;
use std::collections::VecDeque;

/// How many are read at once: enough to keep the connection busy, and few enough for large ones.
const AT_ONCE: usize = 64;

type Reading = BoxFuture<'static, (Handle, Result<Option<Kept<ResultEvent>>, BusError>)>;

/// Messages that are being read, and those whose turn comes then.
pub(crate) struct Recall {
    bus: Bus,
    waiting: VecDeque<Handle>,
    reading: FuturesUnordered<Reading>,
    read: usize,
}

impl Recall {
    pub(crate) fn new(bus: Bus) -> Self {
        Self {
            bus,
            waiting: VecDeque::new(),
            reading: FuturesUnordered::new(),
            read: 0,
        }
    }

    /// These are to be read.
    pub(crate) fn push(&mut self, handles: Vec<Handle>) {
        self.waiting.extend(handles);
        self.begin();
    }

    fn begin(&mut self) {
        while self.reading.len() < AT_ONCE
            && let Some(handle) = self.waiting.pop_front()
        {
            let bus = self.bus.clone();
            let read = async move { (handle, bus.at(Stream::Results, handle.0).await) };
            self.reading.push(read.boxed());
        }
    }

    /// The next one that was read; none if it is not in the stream any more. Never returns while none is
    /// being read: for `select!`. Cancel safe.
    pub(crate) async fn next(&mut self) -> (Handle, Result<Option<Kept<ResultEvent>>, BusError>) {
        let Some(read) = self.reading.next().await else {
            return std::future::pending().await;
        };
        self.read += 1;
        self.begin();
        read
    }

    /// Whether it is time to look what follows: seldom while more is coming.
    pub(crate) fn is_due(&self) -> bool {
        self.reading.is_empty() || self.read.is_multiple_of(AT_ONCE / 2)
    }
}
