//! Block numbers as a command-line argument: `7` or `7..9`, both ends included.

use std::str::FromStr;

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
                .map_err(|_| format!("`{text}` is no block number"))
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
        for bad in ["", "..", "1..", "..2", "1...2", "-1", "0x10", "1..2..3", "latest"] {
            let error = bad.parse::<BlockRange>().unwrap_err();
            assert!(error.contains("is no block number"), "{bad}: {error}");
        }
    }
}
