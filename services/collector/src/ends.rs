//! Cancellations and reorgs that may still concern a block.
//!
//! Under a policy with deadlines there may be an end for every waiting block, so ends are found by
//! number. Nearly all ends cover few numbers, and are found by searching the first numbers just below the
//! one asked for.

use crate::intake::Handle;
use push0_domain::{
    Announcement, BlockHash, BlockRef,
    message::{BlockEnded, EndReason},
    wanted::{Claim, Demand, Ended},
};
use std::{collections::BTreeMap, sync::Arc};

/// Most numbers covered by an end that is found by its first number. Nearly all reorgs cover fewer.
const NEAR: u64 = push0_domain::output::DEPTH as u64;

/// All ends, by their first number and their message.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    near: BTreeMap<(u64, Handle), End>,
    /// Ends covering more numbers: deep reorgs, and ends sent by operators.
    wide: BTreeMap<(u64, Handle), End>,
}

/// The end of some blocks.
#[derive(Debug)]
pub(crate) struct End {
    last: u64,
    before: Announcement,
    hashes: Box<[BlockHash]>,
    /// Why the blocks end. `None` for a reorg.
    reason: Option<Arc<EndReason>>,
}

impl Ends {
    pub(crate) fn insert(&mut self, ended: &BlockEnded, handle: Handle) {
        let reason = Some(ended.reason.clone()).filter(|reason| *reason != EndReason::Reorged);
        let end = End {
            last: ended.last,
            before: ended.before,
            hashes: ended.hashes.as_slice().into(),
            reason: reason.map(Arc::new),
        };
        let is_near = ended.last.saturating_sub(ended.first) < NEAR;
        let ends = if is_near { &mut self.near } else { &mut self.wide };
        ends.insert((ended.first, handle), end);
    }

    /// Returns the ends covering this number, in order of arrival.
    fn at(&self, number: u64) -> impl Iterator<Item = &End> {
        let (least, most) = (Handle(0), Handle(u64::MAX));
        let near = (number.saturating_sub(NEAR - 1), least)..=(number, most);
        let near = self.near.range(near);
        let wide = self.wide.range(..=(number, most));
        let mut found: Vec<(Handle, &End)> = near
            .chain(wide)
            .filter(|(_, end)| number <= end.last)
            .map(|((_, handle), end)| (*handle, end))
            .collect();
        found.sort_by_key(|(handle, _)| *handle);
        found.into_iter().map(|(_, end)| end)
    }

    /// Returns whether the chain has replaced a block.
    pub(crate) fn is_replaced(&self, block: &BlockRef, announcement: Announcement) -> bool {
        let claim = Claim::first(announcement);
        self.at(block.number)
            .any(|end| end.assess(block, claim) == Demand::Replaced)
    }

    /// Returns why a block ends without a proof, if it does. Work that amends a record is not ended.
    pub(crate) fn find(&self, block: &BlockRef, claim: Claim) -> Option<Arc<EndReason>> {
        let mut ends = self.at(block.number);
        let end = ends.find(|end| end.assess(block, claim) == Demand::Ended)?;
        end.reason.clone()
    }

    /// Returns the announcement of a block without results and the reason why the block ends without a proof;
    /// `None` if the block does not end. The ingester's fact holds only a position before the announcement. The
    /// end of a single announcement holds the announcement itself.
    pub(crate) fn find_unseen(
        &self,
        block: &BlockRef,
        announced_after: Announcement,
    ) -> Option<(Announcement, Arc<EndReason>)> {
        self.at(block.number).find_map(|end| {
            let reason = end.reason.as_ref()?;
            let is_its_own = reason.is_of_one_announcement() && end.hashes.contains(&block.hash);
            let announcement = if is_its_own {
                end.before.previous()
            } else {
                announced_after
            };
            let is_ended = end.assess(block, Claim::first(announcement)) == Demand::Ended
                && !self.is_replaced(block, announcement);
            is_ended.then(|| (announcement, reason.clone()))
        })
    }

    /// Returns whether a number ends without a proof, for any block with this number.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.at(number).any(|end| end.reason.is_some())
    }

    /// Returns whether an operator cancelled a number, for any block with this number.
    pub(crate) fn is_cancelled(&self, number: u64) -> bool {
        self.at(number)
            .any(|end| end.reason.is_some() && end.hashes.is_empty())
    }

    /// Removes the ends of numbers before `next`, the number to emit next. Returns their messages.
    pub(crate) fn pass(&mut self, next: u64) -> Vec<Handle> {
        let mut over = Vec::new();
        for ends in [&mut self.near, &mut self.wide] {
            let behind = ends.range(..(next, Handle(0)));
            let behind = behind.filter(|(_, end)| end.last < next);
            let behind: Vec<(u64, Handle)> = behind.map(|(key, _)| *key).collect();
            for key in behind {
                ends.remove(&key);
                over.push(key.1);
            }
        }
        over
    }
}

impl End {
    fn assess(&self, block: &BlockRef, claim: Claim) -> Demand {
        let ended = Ended {
            // `Ends::at` has compared the numbers.
            first: block.number,
            last: self.last,
            hashes: &self.hashes,
            before: self.before,
            is_reorg: self.reason.is_none(),
        };
        ended.assess(*block, claim)
    }
}
