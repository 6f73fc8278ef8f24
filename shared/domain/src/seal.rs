//! The seal of a header: see [`crate::seal_keys`].

use crate::{
    Payloads,
    codec::{self, CodecError, Encoding},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt};

/// Length of each half of a seal in bytes. A guess succeeds once in 2^128 tries, each a message.
pub(crate) const HALF_LEN: usize = 16;
/// Length of a seal in bytes.
pub(crate) const SEAL_LEN: usize = 2 * HALF_LEN;

/// The mark on a header: first the keyed hash of the header, then the hash of the task's inputs, which the first half
/// covers. Text form: `0x` and 64 hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Seal(pub [u8; SEAL_LEN]);

impl Seal {
    /// Returns the mark of a header that is not sealed yet, bound to the inputs of its task.
    pub fn of_inputs(inputs: &Payloads) -> Result<Self, CodecError> {
        let mut seal = Self::default();
        seal.0[HALF_LEN..].copy_from_slice(&digest(inputs)?);
        Ok(seal)
    }

    /// Returns whether these are the inputs released with the header. A header bound to none, as tests
    /// make it, fits any.
    pub fn binds(&self, inputs: &Payloads) -> bool {
        let bound = &self.0[HALF_LEN..];
        bound == [0; HALF_LEN] || digest(inputs).is_ok_and(|digest| bound == digest)
    }

    /// Returns the mark without its first half.
    pub(crate) fn unsealed(mut self) -> Self {
        self.0[..HALF_LEN].fill(0);
        self
    }
}

fn digest(inputs: &Payloads) -> Result<[u8; HALF_LEN], CodecError> {
    let hash = blake3::hash(&codec::encode(inputs, Encoding::Bincode)?);
    let mut half = [0; HALF_LEN];
    half.copy_from_slice(&hash.as_bytes()[..HALF_LEN]);
    Ok(half)
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl Serialize for Seal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("{self:?}"))
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Seal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            from_hex(&Cow::<'de, str>::deserialize(deserializer)?).map(Self)
        } else {
            <[u8; SEAL_LEN]>::deserialize(deserializer).map(Self)
        }
    }
}

pub(crate) fn from_hex<const LEN: usize, E: de::Error>(text: &str) -> Result<[u8; LEN], E> {
    let mut bytes = [0; LEN];
    let digits = text.strip_prefix("0x").unwrap_or(text);
    match hex::decode_to_slice(digits, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(E::custom(format!("expected 0x and {} hex digits", 2 * LEN))),
    }
}
