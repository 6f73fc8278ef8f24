//! A block on the command line: its number, or its hash or the beginning of it.

use crate::failure::Failure;
use crate::records;
use push0_bus::{Bucket, Bus};
use push0_domain::message::KnownBlock;
use push0_domain::{BlockHash, PipelineId};
use std::str::FromStr;

/// The fewest hex digits of a hash that name a block.
const DIGITS_MIN: usize = 4;
/// How many hex digits of a hash the key of a block's facts has.
const DIGITS_OF_KEY: usize = 8;
/// How many candidates an error lists.
const LISTED_MAX: usize = 5;

/// A block as an operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BlockArg {
    /// Its number.
    Number(u64),
    /// `0x` and the beginning of its hash, in lower case.
    Hash(String),
}

impl FromStr for BlockArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(digits) = text.strip_prefix("0x") else {
            return text.parse().map(Self::Number).map_err(|_| {
                format!("`{text}` is no block: expected a number, or 0x and the beginning of a hash")
            });
        };
        let is_hash = digits.len() <= 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_hash || digits.len() < DIGITS_MIN {
            return Err(format!(
                "`{text}` is no hash: expected 0x and {DIGITS_MIN} to 64 hex digits"
            ));
        }
        Ok(Self::Hash(format!("0x{}", digits.to_ascii_lowercase())))
    }
}

impl BlockArg {
    /// Returns whether a block with this hash may be meant.
    pub(crate) fn may_be(&self, hash: &BlockHash) -> bool {
        match self {
            Self::Number(_) => true,
            Self::Hash(beginning) => hash.to_string().starts_with(beginning),
        }
    }

    /// Returns the block's number. A hash is looked for among the facts of blocks, and then among the newest records.
    pub(crate) async fn number(&self, bus: &Bus, pipeline: &PipelineId) -> Result<u64, Failure> {
        let hash = match self {
            Self::Number(number) => return Ok(*number),
            Self::Hash(hash) => hash,
        };
        let facts = bus.facts::<KnownBlock>(Bucket::Blocks).await?;
        let keys = facts.keys(&format!("{pipeline}.>")).await?;
        let mut found: Vec<(u64, String)> = Vec::new();
        for key in keys.iter().filter(|key| may_be(key, hash)) {
            let known = facts.find(key).await?.and_then(|fact| fact.value);
            found.extend(known.map(|known| (known.block.number, known.block.hash.to_string())));
        }
        if found.is_empty() {
            for record in records::tail(bus, pipeline, RECORDS).await? {
                let last = record.emission.last;
                found.push((last.number, last.hash.to_string()));
            }
        }
        found.retain(|(_, of)| of.starts_with(hash.as_str()));
        found.sort();
        found.dedup();
        one_of(hash, &found).map_err(Failure::failed)
    }
}

/// How many of the newest records are searched for a hash whose facts have gone.
const RECORDS: usize = 1_000;

/// Returns whether the key of a block's facts, `PIPELINE.NUMBER.DIGITS`, may be that of a hash with this beginning.
fn may_be(key: &str, hash: &str) -> bool {
    let wanted = &hash["0x".len()..];
    let known = key.rsplit('.').next().unwrap_or_default();
    let digits = wanted.len().min(DIGITS_OF_KEY);
    known.get(..digits) == wanted.get(..digits)
}

fn one_of(hash: &str, found: &[(u64, String)]) -> Result<u64, String> {
    match found {
        [] => Err(format!(
            "no block with a hash {hash}… is known: name it by its number, or check the hash and --pipeline"
        )),
        [(number, _)] => Ok(*number),
        several => {
            let listed = several.iter().take(LISTED_MAX);
            let names: Vec<String> = listed
                .map(|(number, hash)| format!("{number} ({hash})"))
                .collect();
            Err(format!(
                "{} blocks have a hash {hash}…: {}. Give more digits",
                several.len(),
                names.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_a_number_or_the_beginning_of_a_hash() {
        assert_eq!("12".parse(), Ok(BlockArg::Number(12)));
        assert_eq!("0xABcd".parse(), Ok(BlockArg::Hash("0xabcd".into())));
        for bad in [
            "",
            "abc",
            "-1",
            "0x",
            "0xabc",
            "0xabcg",
            &format!("0x{}", "a".repeat(65)),
        ] {
            let error = bad.parse::<BlockArg>().unwrap_err();
            assert!(error.contains("expected"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_prefix_must_name_one_block() {
        assert!(may_be("demo.7.abcdef01", "0xabcd") && may_be("demo.7.abcdef01", "0xabcdef0199"));
        assert!(!may_be("demo.7.abcdef01", "0xabce"));
        let two = [(7, "0xabcd1".to_owned()), (8, "0xabcd2".to_owned())];
        assert_eq!(one_of("0xabcd1", &two[..1]), Ok(7));
        assert!(
            one_of("0xabcd", &two)
                .unwrap_err()
                .contains("7 (0xabcd1), 8 (0xabcd2)")
        );
        assert!(one_of("0xffff", &[]).is_err());
    }
}
