//! Blocks as a command-line argument: `7`, `7..9` with both ends included, or the beginning of a hash.

use crate::block_arg::BlockArg;
use crate::failure::Failure;
use push0_bus::Bus;
use push0_domain::PipelineId;
use std::str::FromStr;

/// Blocks as an operator names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BlocksArg {
    Numbers(BlockRange),
    /// One block, by the beginning of its hash.
    Hash(BlockArg),
}

impl FromStr for BlocksArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("0x") {
            return text.parse().map(Self::Hash);
        }
        text.parse().map(Self::Numbers)
    }
}

impl BlocksArg {
    /// Returns the numbers of these blocks.
    pub(crate) async fn numbers(&self, bus: &Bus, pipeline: &PipelineId) -> Result<BlockRange, Failure> {
        match self {
            Self::Numbers(range) => Ok(*range),
            Self::Hash(hash) => {
                let number = hash.number(bus, pipeline).await?;
                let (first, last) = (number, number);
                Ok(BlockRange { first, last })
            }
        }
    }
}

/// Range of consecutive block numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl FromStr for BlockRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("`{text}` is no block number: expected a number, FIRST..LAST, or 0x and the beginning of a hash"))
        };
        let (first, last) = match text.split_once("..") {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err(format!(
                "{first} comes after {last}: expected FIRST..LAST, both included"
            ));
        }
        Ok(Self { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_range_reads_as_it_is_written(a: u64, b: u64) {
            let (first, last) = (a.min(b), a.max(b));
            prop_assert_eq!(format!("{first}..{last}").parse(), Ok(BlockRange { first, last }));
            prop_assert_eq!(a.to_string().parse(), Ok(BlockRange { first: a, last: a }));
            let backwards = format!("{last}..{first}").parse::<BlockRange>();
            prop_assert_eq!(backwards.is_ok(), first == last);
        }
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for bad in [
            "", "..", "1..", "..2", "1...2", "-1", "1..0xab", "1..2..3", "latest",
        ] {
            let error = bad.parse::<BlocksArg>().unwrap_err();
            assert!(error.contains("is no block number"), "{bad}: {error}");
        }
        for bad in ["0x10", "0xabcd..0xabce"] {
            let error = bad.parse::<BlocksArg>().unwrap_err();
            assert!(error.contains("is no hash"), "{bad}: {error}");
        }
        assert!(matches!("0xABcd".parse(), Ok(BlocksArg::Hash(_))));
    }
}
