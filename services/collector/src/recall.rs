//! Reads messages again whose bodies were dropped from memory but remain in the stream.

use crate::intake::Handle;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use push0_bus::{Bus, BusError, Kept, Stream};
use push0_domain::message::ResultEvent;
use std::collections::VecDeque;

/// Most reads in flight: enough to keep the connection busy, and few enough for large messages.
const AT_ONCE: usize = 64;

type Reading = BoxFuture<'static, (Handle, Result<Option<Kept<ResultEvent>>, BusError>)>;

/// Messages being read, and messages waiting to be read.
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

    /// Queues messages to read.
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

    /// Returns the next message read, with `None` if the stream does not hold it any more. Pends forever
    /// while none is being read, for use in `select!`. Cancel safe.
    pub(crate) async fn next(&mut self) -> (Handle, Result<Option<Kept<ResultEvent>>, BusError>) {
        let Some(read) = self.reading.next().await else {
            return std::future::pending().await;
        };
        self.read += 1;
        self.begin();
        read
    }

    /// Returns whether the collector should advance now: rarely while more messages are coming.
    pub(crate) fn is_due(&self) -> bool {
        self.reading.is_empty() || self.read.is_multiple_of(AT_ONCE / 2)
    }
}
