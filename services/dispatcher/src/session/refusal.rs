//! Messages without a possible action: a dead letter tells an operator, and the blocks end.

use super::{Op, Refusal, Session};
use crate::decide::Effect;
use push0_domain::message::{BlockEnded, EndReason};

impl Session {
    /// Ends a message whose dead letter is stored. `is_defined` tells whether the pipeline of its blocks has a definition.
    pub fn refused(&mut self, refusal: Refusal, dead_letter: String, is_defined: bool) -> Vec<Op> {
        let Refusal { source, reason, .. } = refusal;
        // Without any definition no collector emits the blocks, and no consumer waits for them.
        let Some((pipeline, blocks, announcement)) = refusal.blocks.filter(|_| is_defined) else {
            return self.follow(vec![Effect::Done(source)]);
        };
        let (first, last) = blocks.into_inner();
        let ended = BlockEnded {
            pipeline,
            first: first.number,
            last: last.number,
            // The inner hashes of a range are unknown here. An empty list names them, and `before` excludes
            // blocks announced later.
            hashes: if first == last {
                vec![last.hash]
            } else {
                Vec::new()
            },
            before: announcement.next(),
            reason: EndReason::Refused { dead_letter, reason },
        };
        // The blocks behind the ended ones are emitted.
        self.follow(vec![Effect::End(ended, Some(source))])
    }
}
