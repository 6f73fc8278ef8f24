//! Lists whose length is the choice of their writer.

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use std::{fmt, marker::PhantomData};

/// The first elements of a list, and how many it has. An element may take two bytes of text and many times that in memory,
/// so a list is not read whole before its length is known to be permitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtMost<T, const MAX: usize> {
    /// The first elements, at most `MAX`.
    pub first: Vec<T>,
    /// How many elements the list has.
    pub len: usize,
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for AtMost<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

struct Elements<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
    type Value = AtMost<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut first = Vec::new();
        while first.len() < MAX
            && let Some(element) = elements.next_element()?
        {
            first.push(element);
        }
        let mut len = first.len();
        while len >= MAX && elements.next_element::<IgnoredAny>()?.is_some() {
            len += 1;
        }
        Ok(AtMost { first, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_elements_are_kept_and_all_are_counted() {
        let read =
            |text: &str| serde_json::from_str::<AtMost<u8, 2>>(text).map(|list| (list.first, list.len));
        assert_eq!(read("[]").unwrap(), (vec![], 0));
        assert_eq!(read("[1]").unwrap(), (vec![1], 1));
        assert_eq!(read("[1, 2]").unwrap(), (vec![1, 2], 2));
        assert_eq!(read("[1, 2, 300, \"x\", []]").unwrap(), (vec![1, 2], 5));
        assert!(read("[1, 2, 3").is_err());
        assert!(read("{}").is_err());
    }
}
