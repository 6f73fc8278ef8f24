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
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::fmt;

const EXPECTED: &str = "expected a block number, or {\"number\": 1, \"hash\": \"0x..\", \"parent_hash\": \"0x..\", \"input\": \"0x..\"}";

/// A submitted block with its witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Submitted {
    pub(super) offer: Offer,
    pub(super) witness: Bytes,
}

/// Longest text of a number, a hash or a name of a field, in bytes.
const SHORT_MAX: usize = 80;

/// A block as an object, with values as they were sent: only the digits of the input may be long. An error that holds
/// the text of another value would take the memory of a whole body.
#[derive(Default)]
struct Object<'a> {
    number: Option<&'a RawValue>,
    hash: Option<&'a RawValue>,
    parent_hash: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a block")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object::default();
        while let Some(name) = fields.next_key::<&RawValue>()? {
            let name = name.get().trim_matches('"');
            let field = match name {
                "number" => &mut object.number,
                "hash" => &mut object.hash,
                "parent_hash" => &mut object.parent_hash,
                "input" => &mut object.input,
                _ => {
                    let start: String = name.chars().take(SHORT_MAX).collect();
                    return Err(A::Error::custom(format!("unknown field `{start}`")));
                }
            };
            if field.replace(fields.next_value()?).is_some() {
                return Err(A::Error::custom(format!("duplicate field `{name}`")));
            }
        }
        Ok(object)
    }
}

impl Object<'_> {
    fn number(&self) -> Result<u64, String> {
        short(self.number.ok_or("missing field `number`")?)
    }
}

/// Parses a value that cannot be long.
fn short<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Result<T, String> {
    let text = value.get();
    if text.len() > SHORT_MAX {
        return Err(format!("a value of {} bytes", text.len()));
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn hash(value: Option<&RawValue>) -> Result<Option<BlockHash>, String> {
    value.map_or(Ok(None), short)
}

/// Decodes an input, without a copy of its digits.
fn witness(value: Option<&RawValue>, number: u64) -> Result<Vec<u8>, String> {
    let text = value.map_or("null", RawValue::get);
    if text == "null" {
        return Ok(number.to_string().into_bytes());
    }
    let digits = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let digits = digits.ok_or("input: expected 0x and hex digits")?;
    let bare = digits.strip_prefix("0x").unwrap_or(digits);
    hex::decode(bare).map_err(|error| format!("input: {error}: expected 0x and hex digits"))
}

/// Parses one block. The error names the problem and the expected format.
pub(super) fn parse(text: &str) -> Result<Submitted, String> {
    let text = text.trim();
    let explained = |error: String| format!("{error}: {EXPECTED}");
    let (number, object) = if text.starts_with('{') {
        let object: Object<'_> = serde_json::from_str(text).map_err(|error| explained(error.to_string()))?;
        (object.number().map_err(explained)?, object)
    } else {
        let number = (text.len() <= SHORT_MAX).then(|| serde_json::from_str(text).ok());
        let number = number.flatten().ok_or_else(|| {
            let start: String = text.chars().take(40).collect();
            format!("`{start}` is no block: {EXPECTED}")
        })?;
        (number, Object::default())
    };
    if number > BlockRef::NUMBER_MAX {
        return Err(format!(
            "number {number}: expected at most {}",
            BlockRef::NUMBER_MAX
        ));
    }
    let offer = Offer {
        number,
        hash: hash(object.hash).map_err(explained)?,
        parent_hash: hash(object.parent_hash).map_err(explained)?,
    };
    Ok(Submitted {
        offer,
        witness: witness(object.input, number)?.into(),
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
            ("{\"number\": 1, \"number\": 2}", "duplicate field `number`"),
            ("{\"number\": 1, \"hash\": null, \"input\": 7}", "expected 0x"),
            ("{\"number\": 1, \"parent_hash\": 7}", "invalid type"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_long_text_is_not_repeated() {
        let long = "\u{e9}".repeat(1000);
        for text in [
            long.clone(),
            format!("\"{long}\""),
            format!("{{\"{long}\": 1}}"),
            format!("{{\"number\": \"{long}\"}}"),
            format!("{{\"number\": 1, \"hash\": \"{long}\"}}"),
            format!("{{\"number\": 1, \"input\": \"{long}\"}}"),
            format!("{{\"number\": 1, \"input\": {{\"{long}\": 1}}}}"),
        ] {
            let error = parse(&text).expect_err("no block");
            assert!(error.len() < 400, "{error}");
        }
    }
}
