//! Going back to an earlier block, as an operator asked by `push0 pipeline reset`.

use super::{Ethereum, Halt, RESET_POLL, number::Number};
use crate::{
    decide::reset::{self, Published},
    status::Trouble,
};
use tokio::time::Instant;

impl Ethereum<'_> {
    /// Looks for a wish to go back, and carries it out. Returns [`Halt::Again`] if a wish was carried out: the work
    /// then begins again from the stored state.
    pub(super) async fn reset(&mut self) -> Result<(), Halt> {
        if self.asked_at.is_some_and(|at| at.elapsed() < RESET_POLL) {
            return Ok(());
        }
        self.asked_at = Some(Instant::now());
        // Without an answer of the broker, the wish waits.
        let Ok(Some((wish, revision))) = self.publisher.wish().await else {
            return Ok(());
        };
        let from = wish.from;
        if let Err(refused) = reset::within(self.follower.history().next(), from) {
            self.publisher.refuse(&wish, revision, &refused.to_string()).await;
            return Ok(());
        }
        let asked = self
            .nodes
            .block(Number::At(from), false, self.nodes.answer_max)
            .await;
        let Some(block) = asked.map_err(Halt::Node)? else {
            let reason = format!(
                "{}: the node has no block {from} yet, from which `push0 pipeline reset` goes on",
                self.nodes.shown()
            );
            self.nodes.leave(&reason);
            self.asked_at = None;
            return Err(Halt::Wait(Trouble::Chain, reason));
        };
        let history = self.follower.history();
        let parent = match from.checked_sub(1) {
            None => None,
            Some(before) => match history.hash_at(before) {
                Some(hash) => Some(hash),
                None => match self.publisher.standing(before).await {
                    Ok(standing) => standing,
                    // Without an answer of the broker, the wish waits.
                    Err(_) => return Ok(()),
                },
            },
        };
        let published = Published {
            first: history.first(),
            next: history.next(),
            parent,
        };
        match reset::judge(&published, &block.link) {
            Ok(accepted) => {
                self.publisher.go_back(from, &accepted, revision).await?;
                Err(Halt::Again)
            }
            Err(refused) => {
                self.publisher.refuse(&wish, revision, &refused.to_string()).await;
                Ok(())
            }
        }
    }
}
