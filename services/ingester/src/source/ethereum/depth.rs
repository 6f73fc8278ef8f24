//! The message for an operator about a chain that the follower cannot follow.

use super::{Ethereum, number::Number};
use crate::decide::{
    ancestor::{AncestorSearch, Compared},
    follow::Stuck,
};
use push0_domain::pipeline::Reset;

impl Ethereum<'_> {
    /// Describes the trouble in one sentence that names the way out.
    pub(super) async fn explain(&mut self, stuck: Stuck) -> String {
        let node = self.nodes.shown().to_owned();
        let pipeline = self.publisher.status.pipeline().clone();
        let (last, tip) = match stuck {
            Stuck::Contradiction { number } => {
                return format!(
                    "{node}: the node's block {number} does not follow the node's own block before it"
                );
            }
            Stuck::TooDeep { oldest, tip } => (oldest.saturating_sub(1), tip),
            Stuck::Behind { target, tip } => (target, tip),
        };
        let history = self.follower.history();
        let (first, oldest) = (
            history.first().unwrap_or_default(),
            history.oldest().unwrap_or_default(),
        );
        let is_behind = matches!(stuck, Stuck::Behind { .. });
        if is_behind && last < first {
            return format!(
                "{node}: the node's chain ends before block {first}, the first one of the pipeline, and blocks up to \
                 {tip} were ingested: the node is behind and catches up, or the chain was restarted and `{}` goes on \
                 with it",
                Reset::command(&pipeline, first)
            );
        }
        let mut search = AncestorSearch::among(first, last);
        if is_behind && self.compare(last).await == Compared::Same {
            return format!(
                "{node}: the node is behind: its chain agrees and ends before block {oldest}, and blocks up to {tip} \
                 were ingested: wait until the node has caught up, or name another one in source.rpc_url"
            );
        }
        while let Some(number) = search.next() {
            let compared = self.compare(number).await;
            search.told(number, compared);
        }
        let from = search.replaced_from();
        let depth = self.follower.history().depth();
        format!(
            "{node}: the node's chain replaces the ingested blocks {from} to {tip}, and source.depth = {depth} permits \
             fewer: `{}` accepts it, another node in source.rpc_url keeps the blocks",
            Reset::command(&pipeline, from)
        )
    }

    async fn compare(&self, number: u64) -> Compared {
        let node = self
            .nodes
            .block(Number::At(number), false, self.nodes.answer_max)
            .await;
        let published = self.publisher.standing(number).await;
        match (node, published) {
            (Ok(Some(block)), Ok(Some(hash))) if block.link.block.hash == hash => Compared::Same,
            (Ok(Some(_)), Ok(Some(_))) => Compared::Different,
            _ => Compared::Unknown,
        }
    }
}
