//! Removal of orphaned messages, and of blobs that a participant stores beyond its share. No consumer will ever take
//! an orphaned message.

use super::{JUNK_ABOVE, JUNK_EVERY, LEVEL_EVERY, ROUND_MAX, Sweep};
use crate::janitor::share::{self, CROWDED_BLOBS_ABOVE};
use push0_bus::{BusError, Level, Place, StoredBlobs, Stream};
use push0_domain::{
    BlobPlace, Participant, Timestamp,
    message::Happening,
    subject::{self, participant::Spoken},
};
use std::collections::{BTreeMap, BTreeSet};

/// How often the places are searched while they are nearly empty.
const RARELY: std::time::Duration = std::time::Duration::from_secs(60);

/// Messages of participants, with the number of messages on each subject.
type Counted = Vec<(Spoken, usize)>;

/// The holdings of participants, as of one look.
#[derive(Default)]
pub(super) struct Seen {
    blobs: Option<(StoredBlobs, Level)>,
    streams: Vec<(Stream, Counted)>,
}

impl Sweep<'_> {
    /// Returns whether the places are due to be searched.
    pub(super) fn searches(&self, levels: &[(Place, Level)], now: Timestamp) -> bool {
        let holds_much = levels.iter().any(|(_, level)| level.permille() >= JUNK_ABOVE);
        now.since(self.junk_at) >= if holds_much { JUNK_EVERY } else { RARELY }
    }

    /// Reads the holdings of participants, if a look is due.
    pub(super) async fn seen(&self, levels: &[(Place, Level)], searches: bool) -> Result<Seen, BusError> {
        let mut seen = Seen::default();
        for (place, level) in levels.iter().filter(|(_, level)| searches && level.messages > 0) {
            match place {
                Place::Stream(stream) => {
                    let mut spoken = Vec::new();
                    for kind in share::KINDS {
                        // A kind of another stream has no subjects here.
                        for (subject, count) in self.bus.subjects(*stream, &subject::all(kind)).await? {
                            spoken
                                .extend(subject::participant::spoken(&subject).map(|spoken| (spoken, count)));
                        }
                    }
                    seen.streams.push((*stream, spoken));
                }
                _ => seen.blobs = Some((self.blobs.stored().await?, *level)),
            }
        }
        Ok(seen)
    }

    /// Removes orphaned messages, and blobs that a participant stores beyond its share of a crowded stream.
    pub(super) async fn junk(&mut self, seen: Seen, now: Timestamp) -> Result<(), BusError> {
        for (stream, spoken) in seen.streams {
            self.junk_of_stream(stream, &spoken).await?;
        }
        if let Some((stored, level)) = seen.blobs {
            let left = self.junk_of_blobs(stored).await?;
            self.crowd_of_blobs(level, left, now).await?;
        }
        Ok(())
    }

    async fn junk_of_stream(&mut self, stream: Stream, spoken: &[(Spoken, usize)]) -> Result<(), BusError> {
        let mut filters = BTreeSet::new();
        for (spoken, _) in spoken {
            let junk = share::junk(spoken, |name| self.frontiers.contains_key(name));
            filters.extend(junk.map(|filter| (spoken.who.clone(), filter)));
        }
        let mut removed = BTreeMap::<Participant, u64>::new();
        for (who, filter) in filters.into_iter().take(ROUND_MAX) {
            *removed.entry(who).or_default() += self.bus.purge(stream, &filter).await?;
        }
        for (who, count) in removed {
            self.swept(&who, stream.name(), count);
        }
        Ok(())
    }

    /// Removes blobs of unknown pipelines, and of participants under numbers without a block. Returns
    /// the places that are left.
    async fn junk_of_blobs(&mut self, stored: StoredBlobs) -> Result<BTreeMap<BlobPlace, u64>, BusError> {
        let mut removed = 0;
        for stray in stored.strays.iter().take(ROUND_MAX) {
            removed += self.blobs.remove(stray).await?;
        }
        let (mut left, mut numbers, mut looks) = (stored.places, BTreeMap::new(), 0);
        let mut junk = Vec::new();
        for place in left.keys() {
            let Some(zkvm) = &place.zkvm else { continue };
            let Some(frontier) = self.frontiers.get(&place.pipeline) else {
                junk.push((place.clone(), zkvm.clone()));
                continue;
            };
            if place.number < frontier.next || frontier.is_gone {
                continue;
            }
            let key = (&place.pipeline, place.number);
            let has_block = match numbers.get(&key) {
                Some(known) => *known,
                None if looks == ROUND_MAX => continue,
                None => {
                    looks += 1;
                    let filter = subject::facts::known_blocks(&place.pipeline, place.number);
                    *numbers
                        .entry(key)
                        .or_insert(self.known.next(&filter, 1).await?.is_some())
                }
            };
            if !has_block {
                junk.push((place.clone(), zkvm.clone()));
            }
        }
        let mut of = BTreeMap::<Participant, u64>::new();
        for (place, zkvm) in junk.into_iter().take(ROUND_MAX) {
            let who = Participant {
                zkvm,
                name: place.writer.clone(),
            };
            *of.entry(who).or_default() += self.blobs.remove(&subject::blobs::of_place(&place)).await?;
            left.remove(&place);
        }
        self.removed("junk", usize::try_from(removed).unwrap_or(usize::MAX));
        for (who, count) in of {
            self.swept(&who, &Place::Blobs.name(), count);
        }
        Ok(left)
    }

    /// Removes the blobs of a participant beyond its share that no message names, the largest places first.
    async fn crowd_of_blobs(
        &mut self,
        level: Level,
        left: BTreeMap<BlobPlace, u64>,
        now: Timestamp,
    ) -> Result<(), BusError> {
        let mut bytes = BTreeMap::<Participant, u64>::new();
        let mut places = Vec::new();
        for (place, len) in left {
            let is_settled = self
                .frontiers
                .get(&place.pipeline)
                .is_none_or(|f| place.number < f.next);
            if let Some(zkvm) = place.zkvm.clone()
                && !is_settled
            {
                let name = place.writer.clone();
                *bytes.entry(Participant { zkvm, name }).or_default() += len;
                places.push((place, len));
            }
        }
        let Some(who) = share::flooding(&bytes, &level, CROWDED_BLOBS_ABOVE).cloned() else {
            return Ok(());
        };
        let is_of = |place: &BlobPlace| place.zkvm.as_ref() == Some(&who.zkvm) && place.writer == who.name;
        places.retain(|(place, _)| is_of(place));
        places.sort_by_key(|(_, len)| std::cmp::Reverse(*len));
        let mut removed = 0;
        for (place, _) in places.into_iter().take(LEVEL_EVERY) {
            removed += self.remove_unnamed(&place, now).await?;
        }
        self.flooded(&who, &Place::Blobs.name(), removed);
        Ok(())
    }

    /// Counts a removed orphaned message.
    pub(super) fn swept(&mut self, who: &Participant, stream: &str, count: u64) {
        self.removed("junk", usize::try_from(count).unwrap_or(usize::MAX));
        self.flooded(who, stream, count);
    }

    /// Announces a participant that stored orphaned messages, or more blobs than its share.
    fn flooded(&mut self, who: &Participant, stream: &str, count: u64) {
        if count == 0 {
            return;
        }
        self.has_removed = true;
        self.metrics.flooded(who, stream, count);
        tracing::warn!(
            prover.id = %who.name, zkvm = %who.zkvm, stream, count,
            "removed orphaned messages of this participant, or blobs beyond its share; if it goes on, ban it: \
             docs/runbooks/participant-flooding.md"
        );
        let what = Happening::ParticipantFlooding {
            prover: who.name.clone(),
            zkvm: who.zkvm.clone(),
            stream: stream.to_owned(),
            removed: count,
        };
        self.bus.announce(None, what);
    }
}
