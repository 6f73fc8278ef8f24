//! Format of a submitted block: a bare number, or a JSON object.

use crate::{
    decide::{
        History,
        offer::{self, Conflict, Offer},
    },
    publisher::{NewBlock, Step},
    status::Status,
};
use bytes::Bytes;
use push0_domain::{BlockHash, BlockRef, message::BlockFacts};
use serde::Deserialize;
use std::borrow::Cow;

const EXPECTED: &str = "expected a block number, or {\"number\": 1, \"hash\": \"0x..\", \"parent_hash\": \"0x..\", \"input\": \"0x..\"}";

/// A submitted block with its witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Submitted {
    pub(super) offer: Offer,
    pub(super) witness: Bytes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object<'a> {
    number: u64,
    #[serde(default)]
    hash: Option<BlockHash>,
    #[serde(default)]
    parent_hash: Option<BlockHash>,
    #[serde(borrow, default)]
    input: Option<Digits<'a>>,
}

/// Hex digits borrowed from the body, because they may be most of the body. A type of its own, since
/// serde copies a string inside an `Option`.
#[derive(Deserialize)]
struct Digits<'a>(#[serde(borrow)] Cow<'a, str>);

/// Parses one block. The error names the problem and the expected format.
pub(super) fn parse(text: &str) -> Result<Submitted, String> {
    let text = text.trim();
    let object = if text.starts_with('{') {
        serde_json::from_str::<Object<'_>>(text).map_err(|error| format!("{error}: {EXPECTED}"))?
    } else {
        let number = serde_json::from_str(text).map_err(|_| {
            let start: String = text.chars().take(40).collect();
            format!("`{start}` is no block: {EXPECTED}")
        })?;
        Object {
            number,
            hash: None,
            parent_hash: None,
            input: None,
        }
    };
    let number = object.number;
    if number > BlockRef::NUMBER_MAX {
        return Err(format!(
            "number {number}: expected at most {}",
            BlockRef::NUMBER_MAX
        ));
    }
    let witness = match object.input {
        None => number.to_string().into_bytes(),
        Some(Digits(digits)) => {
            let bare = digits.strip_prefix("0x").unwrap_or(&digits);
            hex::decode(bare).map_err(|error| format!("input: {error}: expected 0x and hex digits"))?
        }
    };
    let offer = Offer {
        number,
        hash: object.hash,
        parent_hash: object.parent_hash,
    };
    Ok(Submitted {
        offer,
        witness: witness.into(),
    })
}

/// Returns the steps for a submitted block.
pub(super) fn steps(
    history: &mut History,
    status: &Status,
    submitted: &Submitted,
) -> Result<Vec<Step>, Conflict> {
    let actions = offer::offer(history, status.pipeline(), &submitted.offer)?;
    let step = |action| {
        Step::of(action, |link| {
            NewBlock::observed(status, link, BlockFacts::default(), submitted.witness.clone())
        })
    };
    Ok(actions.into_iter().map(step).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_a_number_or_an_object() {
        let bare = parse(" 12 ").expect("a number");
        assert_eq!(
            (bare.offer.number, bare.offer.hash, &bare.witness[..]),
            (12, None, &b"12"[..])
        );
        let hash = format!("0x{}", "ab".repeat(32));
        let text =
            format!("{{\"number\": 7, \"hash\": \"{hash}\", \"parent_hash\": null, \"input\": \"0x00ff\"}}");
        let full = parse(&text).expect("an object");
        assert_eq!(full.offer.hash, Some(BlockHash([0xab; 32])));
        assert_eq!(&full.witness[..], [0, 255]);
        assert_eq!(&parse("{\"number\": 7}").expect("an object").witness[..], b"7");
    }

    #[test]
    fn what_is_no_block_is_refused_with_what_was_expected() {
        for (text, said) in [
            ("", "is no block: expected a block number"),
            ("twelve", "`twelve` is no block"),
            ("-1", "`-1` is no block"),
            ("1.5", "`1.5` is no block"),
            ("[1]", "`[1]` is no block"),
            ("{\"number\": \"1\"}", "expected u64"),
            ("{\"nubmer\": 1}", "unknown field `nubmer`"),
            ("{\"hash\": null}", "missing field `number`"),
            (
                "{\"number\": 1, \"hash\": \"0x12\"}",
                "a block hash (0x and 64 hex digits)",
            ),
            (
                "{\"number\": 1, \"input\": \"0xzz\"}",
                "expected 0x and hex digits",
            ),
            ("18446744073709551615", "expected at most"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
