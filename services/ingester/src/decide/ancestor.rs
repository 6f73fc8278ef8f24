//! Search for the last common block among published blocks that the follower does not remember.
//!
//! The ingester undoes no replacement of this depth by itself. The search serves the message for the operator, who
//! needs the number from which the chain of the node differs.

/// A published block compared with the node's block of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The node has the published block.
    Same,
    /// The node has another block.
    Different,
    /// The published block is not known any more.
    Unknown,
}

/// A search by bisection: blocks up to the last common one are equal, all later ones differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AncestorSearch {
    /// The first block of the pipeline.
    first: u64,
    /// The highest number not found different, and whether it was found equal.
    same: Option<(u64, bool)>,
    /// The lowest number found different, or the one after the last number to compare.
    different: u64,
}

impl AncestorSearch {
    /// Begins a search among the numbers from `first` to `last`, inclusive.
    pub fn among(first: u64, last: u64) -> Self {
        Self {
            first,
            same: None,
            different: last.saturating_add(1),
        }
    }

    /// Returns the number to compare next; `None` when the search is over.
    pub fn next(&self) -> Option<u64> {
        let least = self.same.map_or(self.first, |(same, _)| same + 1);
        (least < self.different).then(|| least + (self.different - least) / 2)
    }

    /// Takes the comparison of the number that [`Self::next`] returned.
    pub fn told(&mut self, number: u64, compared: Compared) {
        match compared {
            Compared::Different => self.different = number,
            // Facts expire from the first block on, so unknown blocks lie below all that can differ.
            Compared::Same | Compared::Unknown => self.same = Some((number, compared == Compared::Same)),
        }
    }

    /// Returns the number from which the node's chain replaces the published one: the one after the last common
    /// block, or the pipeline's first one if no common block is known.
    pub fn replaced_from(&self) -> u64 {
        match self.same {
            Some((same, true)) => same + 1,
            Some((_, false)) | None => self.first,
        }
    }
}
