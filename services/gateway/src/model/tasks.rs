//! The tasks of a stage: how many there are, and which of them are done.

use push0_domain::payload::PAYLOADS_MAX;

/// The tasks of a stage of one block.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    of: u32,
    done: u32,
    /// A bit for each task, as far as tasks are done.
    marks: Vec<u64>,
}

impl Tasks {
    /// Notes how many tasks there are at least. A stage has no more than a list of outputs may have.
    pub(super) fn has(&mut self, of: u32) {
        self.of = self.of.max(of.min(PAYLOADS_MAX));
    }

    /// Notes that a task is done.
    pub(super) fn done(&mut self, index: u32) {
        if index >= PAYLOADS_MAX {
            return;
        }
        self.has(index + 1);
        let (word, bit) = ((index / u64::BITS) as usize, 1_u64 << (index % u64::BITS));
        if self.marks.len() <= word {
            self.marks.resize(word + 1, 0);
        }
        if let Some(word) = self.marks.get_mut(word).filter(|word| **word & bit == 0) {
            *word |= bit;
            self.done += 1;
        }
    }

    /// Returns how many tasks there are, as far as known.
    pub(super) fn of(&self) -> u32 {
        self.of
    }

    /// Returns how many tasks are done.
    pub(super) fn count_done(&self) -> u32 {
        self.done
    }

    /// Returns the bytes that the marks take.
    pub(super) fn bytes(&self) -> usize {
        self.marks.len() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_counts_once_and_none_beyond_the_longest_list() {
        let mut tasks = Tasks::default();
        for index in [0, 63, 64, 64, 99_999, PAYLOADS_MAX, u32::MAX] {
            tasks.done(index);
        }
        assert_eq!((tasks.count_done(), tasks.of()), (4, PAYLOADS_MAX));
        tasks.has(u32::MAX);
        assert_eq!(tasks.of(), PAYLOADS_MAX);
        assert!(tasks.bytes() <= 12_504);
    }
}
