//! Removal of blobs that no message names, of one writer and block.

use super::{ROUND_MAX, Sweep};
use push0_bus::{Bus, BusError, Kept, Stream};
use push0_domain::{
    BlobPlace, BlobRef, Payload, Payloads, Timestamp,
    message::{Outcome, ResultEvent, StageReady, Task, TaskResult},
    payload::BlobHash,
    subject::{self, Kind},
};
use serde::de::DeserializeOwned;
use std::{collections::HashSet, time::Duration};

/// How long a blob may lie before a message must name it: longer than the storing of an output and then the result.
const UNNAMED_FOR: Duration = Duration::from_secs(10);
/// The most messages of a pipeline that are read for the blobs they name. Of a longer backlog nothing is removed.
const MESSAGES_MAX: usize = 10_000;
/// The most messages that are read for these blobs, unbelievable ones included.
const LOOKED_MAX: usize = 100_000;
/// How many messages are read before they are looked at: each may be large.
const PAGE: usize = 64;

/// The blobs of one place named by messages. Only messages of services, and reports that the collector would believe,
/// name blobs: otherwise any participant could keep its blobs by naming them.
struct Named<'a> {
    place: &'a BlobPlace,
    blobs: HashSet<BlobHash>,
    /// Whether there is a long list whose entries may be any blob of the place.
    has_list: bool,
    /// The messages that are to be believed.
    believed: usize,
    looked: usize,
}

impl<'a> Named<'a> {
    fn at(place: &'a BlobPlace) -> Self {
        Self {
            place,
            blobs: HashSet::new(),
            has_list: false,
            believed: 0,
            looked: 0,
        }
    }

    fn add(&mut self, payloads: &Payloads) {
        match payloads {
            Payloads::List(list) => list.iter().for_each(|payload| {
                if let Payload::Entry { chunk, .. } = payload {
                    self.chunk(chunk);
                }
            }),
            Payloads::Chunked { chunks, .. } => chunks.iter().for_each(|chunk| self.chunk(chunk)),
        }
        let named = payloads.blobs().filter(|blob| blob.place == *self.place);
        self.blobs.extend(named.map(|blob| blob.hash));
    }

    /// Notes a part of a long list. A participant lists blobs of its own only, since its outputs lie in its own place. The
    /// collector lists those of others.
    fn chunk(&mut self, chunk: &BlobRef) {
        self.has_list |= chunk.place == *self.place || chunk.place.zkvm.is_none();
    }

    /// Notes a message of a service.
    fn inputs(&mut self, inputs: &Payloads) {
        self.believed += 1;
        self.add(inputs);
    }

    /// Notes a report that is to be believed.
    fn result(&mut self, result: &TaskResult) {
        self.believed += 1;
        if let Some(inputs) = &result.inputs {
            self.add(inputs);
        }
        // Outputs that make the attempt a failure have no reader.
        if result.failure().is_none()
            && let Outcome::Completed { outputs } = &result.outcome
        {
            self.add(outputs);
        }
    }

    fn is_unknown(&self) -> bool {
        self.has_list || self.believed >= MESSAGES_MAX || self.looked >= LOOKED_MAX
    }
}

impl Sweep<'_> {
    /// Removes the blobs of one place that no message of their pipeline names. Returns how many parts were removed.
    pub(super) async fn remove_unnamed(
        &mut self,
        place: &BlobPlace,
        now: Timestamp,
    ) -> Result<u64, BusError> {
        // Blobs are listed before messages are read: a blob that is stored meanwhile stays.
        let stored = self.blobs.at(place).await?;
        let named = self.named(place).await?;
        if named.is_unknown() {
            return Ok(0);
        }
        let mut removed = 0;
        let unnamed = stored.into_iter().filter(|hash| !named.blobs.contains(hash));
        for hash in unnamed.take(ROUND_MAX) {
            let parts = subject::blobs::parts(place, hash);
            let newest = self.blobs.newest(&parts).await?;
            if newest.is_some_and(|newest| now.since(newest) >= UNNAMED_FOR) {
                removed += self.blobs.remove(&parts).await?;
            }
        }
        Ok(removed)
    }

    async fn named<'p>(&mut self, place: &'p BlobPlace) -> Result<Named<'p>, BusError> {
        let mut named = Named::at(place);
        let all = |kind| subject::attempts_of_pipeline(kind, &place.pipeline);
        let (stages, tasks) = (all(Kind::Stage), all(Kind::Task));
        let mut pages = Pages::of(Stream::Stages, &stages);
        while let Some(page) = pages.next::<StageReady>(self.bus, &mut named).await? {
            page.into_iter()
                .filter_map(|kept| kept.body.ok())
                .for_each(|ready| named.inputs(&ready.inputs));
        }
        let mut pages = Pages::of(Stream::Tasks, &tasks);
        while let Some(page) = pages.next::<Task>(self.bus, &mut named).await? {
            page.into_iter()
                .filter_map(|kept| kept.body.ok())
                .for_each(|task| named.inputs(&task.inputs));
        }
        let checks = all(Kind::Check);
        let mut pages = Pages::of(Stream::Checks, &checks);
        while let Some(page) = pages.next::<TaskResult>(self.bus, &mut named).await? {
            for kept in page {
                if let Ok(result) = kept.body
                    && self
                        .seals
                        .admit(&kept.subject, Kind::Check, &result)
                        .await?
                        .is_ok()
                {
                    named.result(&result);
                }
            }
        }
        for (kind, results) in [Kind::Result, Kind::Verdict].map(|kind| (kind, all(kind))) {
            let mut pages = Pages::of(Stream::Results, &results);
            while let Some(page) = pages.next::<ResultEvent>(self.bus, &mut named).await? {
                for kept in page {
                    if let Ok(ResultEvent::Attempt(result)) = kept.body
                        && self.seals.admit(&kept.subject, kind, &result).await?.is_ok()
                    {
                        named.result(&result);
                    }
                }
            }
        }
        Ok(named)
    }
}

/// The messages of one filter, a page at a time.
struct Pages<'a> {
    stream: Stream,
    filter: &'a str,
    from: u64,
}

impl<'a> Pages<'a> {
    fn of(stream: Stream, filter: &'a str) -> Self {
        Self {
            stream,
            filter,
            from: 1,
        }
    }

    /// Reads the next page; `None` after the last one, or if it is settled that nothing can be removed.
    async fn next<T: DeserializeOwned>(
        &mut self,
        bus: &Bus,
        named: &mut Named<'_>,
    ) -> Result<Option<Vec<Kept<T>>>, BusError> {
        if named.is_unknown() {
            return Ok(None);
        }
        let page = bus.scan::<T>(self.stream, self.filter, self.from, PAGE).await?;
        named.looked += page.len();
        self.from = page.last().map_or(self.from, |last| last.sequence + 1);
        Ok((!page.is_empty()).then_some(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(zkvm: Option<&str>, writer: &str, number: u64) -> BlobPlace {
        BlobPlace {
            zkvm: zkvm.map(|zkvm| zkvm.parse().unwrap()),
            writer: writer.parse().unwrap(),
            pipeline: "demo".parse().unwrap(),
            number,
        }
    }

    /// One entry of any list kept all blobs of all places.
    #[test]
    fn a_list_hides_blobs_of_its_own_writer_or_is_a_services() {
        let hides = |chunk: BlobPlace| {
            let hostile = place(Some("mock"), "hostile", 7);
            let chunk = BlobRef::of(chunk, b"a chunk");
            let entry = Payload::Entry {
                chunk: chunk.clone(),
                entry: 0,
            };
            let lists = [
                Payloads::one(entry),
                Payloads::Chunked {
                    count: 1,
                    chunks: vec![chunk],
                },
            ];
            lists.map(|list| {
                let mut named = Named::at(&hostile);
                named.add(&list);
                named.has_list
            })
        };
        assert_eq!(hides(place(Some("mock"), "hostile", 7)), [true; 2]);
        assert_eq!(hides(place(None, "collector", 7)), [true; 2]);
        assert_eq!(hides(place(Some("mock"), "hostile", 8)), [false; 2]);
        assert_eq!(hides(place(Some("mock"), "accomplice", 7)), [false; 2]);
    }

    #[test]
    fn a_message_names_the_blobs_of_the_place() {
        let own = place(Some("mock"), "p1", 7);
        let (ours, other) = (
            BlobRef::of(own.clone(), b"ours"),
            BlobRef::of(place(None, "ingester", 7), b"other"),
        );
        let mut named = Named::at(&own);
        named.add(&Payloads::List(vec![
            Payload::Blob(ours.clone()),
            Payload::Blob(other),
        ]));
        assert_eq!(named.blobs, HashSet::from([ours.hash]));
        assert!(!named.is_unknown());
    }
}
