//! Contents of the blob store, and their removal: for the janitor and for operators.

use super::{BlobError, Blobs, StoredBlobs};
use crate::{inspect::stored_at, leaderless::refuse_without_leader, provision::BLOBS};
use async_nats::jetstream::stream::{InfoWithSubjects, LastRawMessageErrorKind};
use futures::TryStreamExt;
use push0_domain::{
    BlobPlace, Timestamp,
    payload::{BLOB_PART_LEN, BlobHash},
    subject::{self, Kind},
};
use std::collections::BTreeSet;

/// The most subjects that one look reads. A store of honest blobs has fewer up to some 200 GiB; of a store with more,
/// one look sees a part.
const SUBJECTS_MAX: usize = 400_000;

impl Blobs {
    /// Returns the contents of the store, read from its leader.
    pub async fn stored(&self) -> Result<StoredBlobs, BlobError> {
        let mut subjects = self.subjects(&subject::all(Kind::Blob)).await?;
        let (mut stored, mut read) = (StoredBlobs::default(), 0);
        while read < SUBJECTS_MAX
            && let Some((subject, _)) = subjects.try_next().await.map_err(unavailable)?
        {
            read += 1;
            match subject::blobs::place(&subject) {
                Some((place, _)) => *stored.places.entry(place).or_default() += BLOB_PART_LEN,
                None => stored.strays.push(subject),
            }
        }
        Ok(stored)
    }

    /// Returns the blobs of one place, read from the store's leader.
    pub async fn at(&self, place: &BlobPlace) -> Result<BTreeSet<BlobHash>, BlobError> {
        let mut subjects = self.subjects(&subject::blobs::of_place(place)).await?;
        let mut blobs = BTreeSet::new();
        while blobs.len() < SUBJECTS_MAX
            && let Some((subject, _)) = subjects.try_next().await.map_err(unavailable)?
        {
            blobs.extend(subject::blobs::place(&subject).map(|(_, hash)| hash));
        }
        Ok(blobs)
    }

    /// Returns the subjects of the store that match, as its leader knows them. Subjects missing in a copy without a
    /// leader would count as removed.
    async fn subjects(&self, filter: &str) -> Result<InfoWithSubjects, BlobError> {
        let stream = self.bus.jetstream.get_stream_no_info(BLOBS).await;
        let stream = stream.map_err(unavailable)?;
        let subjects = stream.info_with_subjects(filter).await.map_err(unavailable)?;
        refuse_without_leader(BLOBS, subjects.info.cluster.as_ref()).map_err(unavailable)?;
        Ok(subjects)
    }

    /// Returns when the newest part with a subject of this filter was stored; `None` if there is none.
    pub async fn newest(&self, filter: &str) -> Result<Option<Timestamp>, BlobError> {
        let stream = self.bus.jetstream.get_stream_no_info(BLOBS).await;
        let stream = stream.map_err(unavailable)?;
        match stream.get_last_raw_message_by_subject(filter).await {
            Ok(message) => Ok(Some(stored_at(&message))),
            Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(e) => Err(unavailable(e)),
        }
    }

    /// Removes every part with a subject of this filter. Returns how many were removed.
    pub async fn remove(&self, filter: &str) -> Result<u64, BlobError> {
        let stream = self.bus.jetstream.get_stream_no_info(BLOBS).await;
        let stream = stream.map_err(unavailable)?;
        let purged = stream.purge().filter(filter).await;
        purged.map(|purged| purged.purged).map_err(unavailable)
    }
}

fn unavailable(error: impl std::fmt::Display) -> BlobError {
    BlobError::Unavailable(error.to_string())
}
