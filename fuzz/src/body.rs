//! Bodies of messages and stored values: their types, and the invariants of each.

use crate::{held::taken, walk::Walk};
use push0_domain::{
    Payload,
    codec::{self, CodecError, Encoding},
    message::{
        BlockEvent, Control, DeadLetter, Emission, Event, HeldQueue, KnownBlock, Lease, Presence,
        ResultEvent, StageReady, Task, TaskResult,
    },
    pipeline::{Pipeline, Position, Reset},
    seal_keys::SealKeys,
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// Most bytes in memory for each byte of a body. Two bytes of bincode are an empty payload, which takes 104 in a list, and
/// a list grows by doubling.
const HELD_FACTOR: usize = 128;
/// Most bytes while a body is read: the announced length of a list may reserve as much as serde lets it.
const PEAK_FACTOR: usize = 2 * HELD_FACTOR;
const RESERVED_MAX: usize = 2 << 20;
/// The parts of a message that exist once.
const ALWAYS: usize = 4096;

/// A type of body.
pub struct Kind {
    /// The type's name in docs/protocol.md.
    pub name: &'static str,
    /// Reads bytes as the type and checks its invariants.
    pub read: fn(&[u8], Encoding),
    /// Returns the bincode of a value in JSON; `None` if the text is not of the type.
    pub to_bincode: fn(&str) -> Option<Vec<u8>>,
}

macro_rules! kinds {
    ($($kind:ty),* $(,)?) => {
        &[$(Kind { name: stringify!($kind), read: read::<$kind>, to_bincode: to_bincode::<$kind> }),*]
    };
}

/// Every type that is read from a stream, a subscription or a blob.
pub const MESSAGES: &[Kind] = kinds![
    BlockEvent,
    StageReady,
    Task,
    TaskResult,
    ResultEvent,
    Lease,
    Control,
    Emission,
    DeadLetter,
    KnownBlock,
    Event,
    Presence,
    Vec<Payload>,
];

/// Every type that is read from a bucket, always in JSON.
pub const STATES: &[Kind] = kinds![KnownBlock, Pipeline, Position, Reset, HeldQueue, SealKeys];

/// Reads an input whose first byte chooses one of `kinds`.
pub fn read_chosen(kinds: &[Kind], encoding: Encoding, input: &[u8]) {
    if let Some((chosen, body)) = input.split_first() {
        (kinds[usize::from(*chosen) % kinds.len()].read)(body, encoding);
    }
}

/// Reads a body. If that succeeds, the value is bounded and the same in both encodings, and its methods end.
fn read<T>(body: &[u8], encoding: Encoding)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug + Walk,
{
    let (result, taken) = taken(|| codec::decode::<T>(body, encoding));
    assert!(
        taken.held <= HELD_FACTOR * body.len() + ALWAYS
            && taken.peak <= PEAK_FACTOR * body.len() + RESERVED_MAX + ALWAYS,
        "{} bytes took {taken:?}",
        body.len()
    );
    let Ok(value) = result else { return };
    for encoding in [Encoding::Bincode, Encoding::Json] {
        match codec::encode(&value, encoding) {
            Ok(written) => match codec::decode::<T>(&written, encoding) {
                Ok(again) => assert_eq!(again, value, "{encoding}"),
                Err(error) => panic!("{encoding} of {value:?} is not read back: {error}"),
            },
            // JSON says more of a field that the body left out.
            Err(CodecError::TooLarge(_)) => {}
            Err(error) => panic!("{value:?} was read and cannot be written: {error}"),
        }
    }
    value.walk();
}

fn to_bincode<T: Serialize + DeserializeOwned>(json: &str) -> Option<Vec<u8>> {
    let value: T = codec::decode(json.as_bytes(), Encoding::Json).ok()?;
    codec::encode(&value, Encoding::Bincode).ok()
}
