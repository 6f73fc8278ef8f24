//! The effects to be carried out.
//!
//! A hostile lease may list thousands of attempts, and each decision about one of them costs requests to the broker. So
//! the effects take turns between participants, and the shell carries out some of them between
//! two looks at the heartbeats: one participant delays the effects about another by one effect at most.

use crate::decide::Effect;
use push0_domain::Participant;
use std::collections::{BTreeMap, VecDeque};

/// Most effects about one participant that wait. Orders to stop are repeated by the core, and no honest lease calls for
/// so many others.
const WAITING_MAX: usize = 8192;
/// Most effects about one participant that wait before its orders to stop are left out: each is given again a second
/// later.
const ORDERS_MAX: usize = 64;

/// The effects to carry out, in turn between participants.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    waiting: BTreeMap<Option<Participant>, VecDeque<Effect>>,
    /// The participants with waiting effects, the next one first.
    turns: VecDeque<Option<Participant>>,
}

impl Agenda {
    pub(crate) fn add(&mut self, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            let about = effect.about();
            let waiting = self.waiting.entry(about.clone()).or_default();
            if waiting.is_empty() {
                self.turns.push_back(about);
            }
            let is_order = matches!(effect, Effect::Stop { .. });
            if waiting.len() < if is_order { ORDERS_MAX } else { WAITING_MAX } {
                waiting.push_back(effect);
            }
        }
    }

    /// Takes the next effect.
    pub(crate) fn next(&mut self) -> Option<Effect> {
        let about = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&about)?;
        let effect = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&about);
        } else {
            self.turns.push_back(about);
        }
        effect
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Reason;
    use push0_domain::{BlockHash, BlockRef, StageKey, message::Happening};

    fn participant(name: &str) -> Participant {
        Participant {
            zkvm: "vm".parse().unwrap(),
            name: name.parse().unwrap(),
        }
    }

    fn stop(prover: &str, index: u32) -> Effect {
        let stage = StageKey {
            pipeline: "demo".parse().unwrap(),
            block: BlockRef {
                number: 7,
                hash: BlockHash([7; 32]),
            },
            first: None,
            proof_type: "main".parse().unwrap(),
            stage: "prove".parse().unwrap(),
        };
        Effect::Stop {
            prover: participant(prover),
            attempt: stage.task(index).attempt(1),
            reason: Reason::Won,
        }
    }

    fn notice(prover: &str) -> Effect {
        Effect::Announce(Happening::ProverFound {
            prover: prover.parse().unwrap(),
            zkvm: "vm".parse().unwrap(),
            role: push0_domain::message::Role::Prover,
        })
    }

    #[test]
    fn thousands_of_effects_about_one_prover_delay_another_by_one() {
        let mut agenda = Agenda::default();
        agenda.add((0..5000).map(|index| stop("hostile", index)));
        agenda.add([stop("honest", 0), stop("honest", 1), notice("honest")]);
        let of: Vec<Option<Participant>> = (0..6).map(|_| agenda.next().unwrap().about()).collect();
        let (hostile, honest) = (Some(participant("hostile")), Some(participant("honest")));
        assert_eq!(
            of,
            [&hostile, &honest, &None, &hostile, &honest, &hostile].map(Clone::clone)
        );
        let left = std::iter::from_fn(|| agenda.next()).count();
        assert_eq!(left, ORDERS_MAX - 3, "further orders are repeated by the core");
        assert!(agenda.is_empty());
    }
}
