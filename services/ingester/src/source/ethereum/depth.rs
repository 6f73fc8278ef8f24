//! The follower's steps, and the words to an operator, when the follower cannot follow a chain.

use super::{Ethereum, number::Number};
use crate::{
    decide::{
        ancestor::{AncestorSearch, Compared},
        follow::Stuck,
    },
    status::Trouble,
};
use push0_bus::Backoff;
use push0_domain::pipeline::Reset;
use std::time::Duration;
use tokio::time::Instant;

/// How long an explanation holds before the chains are compared again.
const EXPLAINED_FOR: Duration = Duration::from_secs(60);

impl Ethereum<'_> {
    /// Deals with a chain that cannot be followed: asks every other node first, then tells the way out. Returns the
    /// pause before the next look.
    pub(super) async fn is_stuck(&mut self, stuck: Stuck, backoff: &mut Backoff) -> Duration {
        self.stuck.asked += 1;
        if self.stuck.asked < self.nodes.count() {
            self.nodes
                .leave(&"its chain does not continue the ingested blocks");
            return self.source.poll;
        }
        let status = &mut self.publisher.status;
        match &self.stuck.explained {
            Some((before, at, reason)) if *before == stuck && at.elapsed() < EXPLAINED_FOR => {
                status.blocked(Trouble::Chain, reason);
            }
            _ => match self.explain(stuck).await {
                Ok(reason) => {
                    self.publisher.status.blocked(Trouble::Chain, &reason);
                    self.stuck.asked = 0;
                    self.stuck.explained = Some((stuck, Instant::now(), reason));
                }
                Err(error) => {
                    let node = self.nodes.shown();
                    let reason = format!(
                        "{node}: the node's chain does not continue the ingested blocks, and from which block it \
                         differs cannot be told yet: {error}"
                    );
                    self.publisher.status.failing(Trouble::Chain, &reason);
                }
            },
        }
        backoff.next_delay()
    }

    /// Describes the trouble in one sentence that names the way out. A failed request ends the comparison: a guess
    /// might name blocks still in the chain.
    async fn explain(&self, stuck: Stuck) -> Result<String, String> {
        let node = self.nodes.shown().to_owned();
        let pipeline = self.publisher.status.pipeline().clone();
        let (last, tip) = match stuck {
            Stuck::Contradiction { number } => {
                return Ok(format!(
                    "{node}: the node's block {number} does not follow the node's own block before it"
                ));
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
            return Ok(format!(
                "{node}: the node's chain ends before block {first}, the first one of the pipeline, and blocks up to \
                 {tip} were ingested: the node is behind and catches up, or the chain was restarted and `{}` goes on \
                 with it from there, a lower number from earlier",
                Reset::command(&pipeline, first)
            ));
        }
        let mut search = AncestorSearch::among(first, last);
        if is_behind && self.compare(last).await? == Compared::Same {
            return Ok(format!(
                "{node}: the node is behind: its chain agrees and ends before block {oldest}, and blocks up to {tip} \
                 were ingested: wait until the node has caught up, or name another one in source.rpc_url"
            ));
        }
        while let Some(number) = search.next() {
            let compared = self.compare(number).await?;
            search.told(number, compared);
        }
        let from = search.replaced_from();
        let depth = self.follower.history().depth();
        Ok(format!(
            "{node}: the node's chain replaces the ingested blocks {from} to {tip}, and source.depth = {depth} permits \
             fewer: `{}` accepts it, another node in source.rpc_url keeps the blocks",
            Reset::command(&pipeline, from)
        ))
    }

    async fn compare(&self, number: u64) -> Result<Compared, String> {
        let node = self
            .nodes
            .block(Number::At(number), false, self.nodes.answer_max)
            .await;
        let block = node.map_err(|failed| failed.to_string())?;
        let block = block.ok_or_else(|| format!("the node has no block {number}"))?;
        let published = self.publisher.standing(number).await;
        Ok(match published.map_err(|error| error.to_string())? {
            Some(hash) if hash == block.link.block.hash => Compared::Same,
            Some(_) => Compared::Different,
            None => Compared::Unknown,
        })
    }
}
