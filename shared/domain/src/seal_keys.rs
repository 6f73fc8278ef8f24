//! Seals: the dispatcher's mark on the header of a task.
//!
//! A prover echoes the header of its task in results and leases. The seal shows that the dispatcher wrote this header,
//! and so released this attempt with these limits. The holder of a header got it by a delivery.
//!
//! The first half of a seal is the first 16 bytes of the keyed BLAKE3 hash of the header in bincode, with zeroes in its
//! place. The second half is the hash of the task's inputs, so that a failure cannot hand other inputs to the next
//! attempt. The dispatcher seals with the newest key. Readers accept every key, so that a new key does not void the work in
//! flight.

use crate::{
    codec::{self, CodecError, Encoding},
    message::TaskHeader,
    seal::{HALF_LEN, from_hex},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{borrow::Cow, fmt};

/// Length of a key in bytes.
pub const KEY_LEN: usize = 32;
/// The prefix of every hashed text, so that a key never serves two purposes.
const PURPOSE: &[u8] = b"push0 task header 1\0";
/// Most keys that are kept. Each rotation drops the oldest one beyond.
const KEYS_MAX: usize = 4;

/// A secret key. Its debug form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey([u8; KEY_LEN]);

impl SealKey {
    /// Makes a key of random bytes.
    pub fn new(random: [u8; KEY_LEN]) -> Self {
        Self(random)
    }

    fn seal(&self, header: &TaskHeader) -> Result<blake3::Hash, CodecError> {
        let unsealed = TaskHeader {
            seal: header.seal.unsealed(),
            ..header.clone()
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(PURPOSE);
        hasher.update(&codec::encode(&unsealed, Encoding::Bincode)?);
        let hash = hasher.finalize();
        Ok(padded(hash.as_bytes()))
    }
}

/// Returns the first bytes of a hash as a hash, whose comparison takes the same time for all values.
fn padded(bytes: &[u8]) -> blake3::Hash {
    let mut all = [0; KEY_LEN];
    all[..HALF_LEN].copy_from_slice(&bytes[..HALF_LEN]);
    blake3::Hash::from_bytes(all)
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(secret)")
    }
}

impl Serialize for SealKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("0x{}", hex::encode(self.0)))
    }
}

impl<'de> Deserialize<'de> for SealKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_hex(&Cow::<'de, str>::deserialize(deserializer)?).map(Self)
    }
}

/// The keys of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealKeys {
    /// The key that seals.
    newest: SealKey,
    /// Earlier keys, the newest first. Headers that they sealed are still accepted.
    #[serde(default)]
    older: Vec<SealKey>,
}

impl SealKeys {
    /// Returns the keys of a new deployment.
    pub fn new(first: SealKey) -> Self {
        Self {
            newest: first,
            older: Vec::new(),
        }
    }

    /// Returns the keys after a rotation: `newest` seals from now on.
    #[must_use]
    pub fn rotated(self, newest: SealKey) -> Self {
        let older = std::iter::once(self.newest).chain(self.older);
        Self {
            newest,
            older: older.take(KEYS_MAX - 1).collect(),
        }
    }

    /// Seals a header. Fails if the header is too large for a message.
    pub fn seal(&self, header: TaskHeader) -> Result<TaskHeader, CodecError> {
        let hash = self.newest.seal(&header)?;
        let mut seal = header.seal;
        seal.0[..HALF_LEN].copy_from_slice(&hash.as_bytes()[..HALF_LEN]);
        Ok(TaskHeader { seal, ..header })
    }

    /// Returns whether the dispatcher wrote a header, with one of these keys.
    pub fn verify(&self, header: &TaskHeader) -> bool {
        let claimed = padded(&header.seal.0);
        let mut keys = std::iter::once(&self.newest).chain(&self.older);
        keys.any(|key| key.seal(header).is_ok_and(|seal| seal == claimed))
    }
}
