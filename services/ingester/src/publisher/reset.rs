//! Carrying out of an operator's wish to go back to an earlier block.
//!
//! The wish is a fact, and the cursor holds the revision of the last wish that was carried out. A crash in between
//! therefore neither loses a wish nor carries one out twice.

use super::{Deposed, Publisher, wishes::Wishes};
use crate::decide::reset::Accepted;
use push0_bus::BusError;
use push0_domain::{
    BlockHash,
    message::{Cancel, EndReason},
    pipeline::Reset,
    subject,
};

impl Publisher {
    /// Returns the wishes to look for while blocks are stored.
    pub(crate) fn wishes(&self) -> Wishes {
        Wishes {
            resets: self.resets.clone(),
            pipeline: self.status.pipeline().clone(),
            carried_out: self.cursor.reset,
        }
    }

    /// Returns the operator's wish that was neither carried out nor refused, and its revision.
    pub(crate) async fn wish(&self) -> Result<Option<(Reset, u64)>, BusError> {
        let wishes = self.wishes();
        let found = wishes.find().await?;
        if let Some((_, revision)) = found
            && revision <= self.cursor.reset
        {
            self.forget(revision).await;
        }
        Ok(found.filter(|(wish, revision)| wishes.is_open(wish, *revision)))
    }

    /// Returns the hash published last under a number, if it is still known.
    pub(crate) async fn standing(&self, number: u64) -> Result<Option<BlockHash>, BusError> {
        let key = subject::facts::known_blocks(self.status.pipeline(), number);
        // Each announcement of a block writes its fact again.
        let newest = self
            .known
            .list(&key)
            .await?
            .into_iter()
            .max_by_key(|fact| fact.revision);
        Ok(newest.and_then(|fact| fact.value).map(|known| known.block.hash))
    }

    /// Cancels the published blocks from `from` on, and moves the cursor before them.
    pub(crate) async fn go_back(
        &mut self,
        from: u64,
        accepted: &Accepted,
        revision: u64,
    ) -> Result<(), Deposed> {
        let pipeline = self.status.pipeline().clone();
        let in_doubt = self.cursor.ahead.iter().map(|block| block.number).max();
        let last = accepted.replaced.map(|(_, last)| last).max(in_doubt);
        if let Some(last) = last.filter(|last| *last >= from) {
            tracing::warn!(%pipeline, first = from, last, "an operator replaces these blocks by the node's chain");
            // Without hashes: all blocks under these numbers that were announced so far are replaced.
            let cancel = Cancel {
                pipeline: pipeline.clone(),
                first: from,
                last,
                hashes: Vec::new(),
                reason: EndReason::Reorged,
            };
            self.store_cancel(cancel, last - from + 1).await;
        }
        let mut cursor = self.cursor.clone();
        cursor.block = accepted.back_to;
        cursor.first = Some(cursor.first.map_or(from, |first| first.min(from)));
        cursor.ahead = Vec::new();
        cursor.reorgs += 1;
        cursor.reset = revision;
        self.move_cursor(cursor).await?;
        self.forget(revision).await;
        Ok(())
    }

    /// Tells the operator why a wish cannot be carried out. If the broker is away, the wish is judged again later.
    pub(crate) async fn refuse(&self, wish: &Reset, revision: u64, reason: &str) {
        let pipeline = self.status.pipeline();
        tracing::warn!(
            %pipeline,
            from = wish.from,
            reason,
            "`push0 pipeline reset` is refused, nothing was changed"
        );
        let refused = Reset {
            refused: Some(reason.to_owned()),
            ..wish.clone()
        };
        let told = self.resets.swap(&Reset::key(pipeline), &refused, revision).await;
        if let Err(error) = told {
            tracing::debug!(%pipeline, %error, "the refusal was not stored");
        }
    }

    /// Removes a fulfilled wish, unless a newer one has taken its place. A remaining wish is ignored.
    async fn forget(&self, revision: u64) {
        let key = Reset::key(self.status.pipeline());
        let there = self.resets.get(&key).await;
        if there.is_ok_and(|fact| fact.is_some_and(|fact| fact.revision == revision))
            && let Err(error) = self.resets.delete(&key).await
        {
            tracing::debug!(pipeline = %self.status.pipeline(), %error, "a wish that was carried out remains");
        }
    }
}
