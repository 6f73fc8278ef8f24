//! What becomes of deliveries that their processes cannot settle, once the broker was asked about them.

use super::{
    Session,
    op::{Delivery, Errand, Found, Lost, Op, Order, SecondCopy, Stored, What, Wish, Writing},
};
use crate::{
    decide::Because,
    reports,
    unheld::{Fate, Unheld},
};
use push0_domain::{
    Timestamp,
    message::{Held, Role},
    pipeline::Rest,
    subject::AttemptKey,
};
use std::time::Duration;

impl<P> Session<P> {
    /// Handles the list of attempts in TASKS, or in CHECKS for verifiers.
    pub fn looked(&mut self, role: Role, mut present: Vec<AttemptKey>, now: Timestamp) {
        if role == Role::Verifier {
            self.unverified.present(&present.iter().cloned().collect());
            present.retain(|key| !self.unverified.rests(key, now));
        }
        // One delivery is settled before the next is looked up, and CHECKS is looked at after TASKS.
        for unheld in self.core.look(role, present, now).into_iter().rev() {
            self.at_once.push_front(Op::Locate(Errand::Unheld(unheld)));
        }
    }

    /// Handles the answer about a delivery; `None` if there is no message of the attempt, or no consumer for it.
    pub fn located(&mut self, errand: Errand, found: Option<Found<P>>) {
        let op = match errand {
            Errand::Unheld(unheld) => self.pass_on(unheld, found),
            // A lease may name any sequence, and another message may have replaced the one of the lease.
            Errand::Listed(_, held, wish) => found
                .filter(|found| found.sequence == held.sequence)
                .map(|found| settle(*held, wish, found)),
        };
        if let Some(op) = op {
            self.at_once.push_front(op);
        }
    }

    /// Passes on an unheld attempt if it was delivered. Otherwise it waits for a process. An attempt whose delivery was
    /// acknowledged is over, and is removed.
    fn pass_on(&mut self, unheld: Unheld, found: Option<Found<P>>) -> Option<Op<P>> {
        let Unheld { key, role, fate } = unheld;
        let found = found.filter(|found| found.state != Delivery::Waits);
        let Some(Found {
            sequence,
            state,
            place,
        }) = found
        else {
            self.core.waits(role, &key);
            return None;
        };
        if state == Delivery::Acknowledged {
            return Some(Op::Remove(key, place));
        }
        let (prover, what) = match fate {
            Fate::Extended => return Some(Op::Extend(place)),
            Fate::Suspect => return None,
            Fate::Lost => {
                let unheld = Some(key);
                return Some(Op::GiveBack { place, unheld });
            }
            Fate::Doubted(prover) => (prover, What::Copy(Because::Silent, None)),
            Fate::Fell(prover, end) => {
                let (heard, trace) = (None, None);
                (
                    prover,
                    What::End {
                        sequence,
                        place,
                        end,
                        heard,
                        trace,
                    },
                )
            }
        };
        Some(Op::ReadTask(Writing { key, prover, what }))
    }

    /// Handles a task that was read; `None` if it was acknowledged or purged, so nothing is left to write.
    pub fn task_read(&mut self, writing: Writing<P>, stored: Option<Stored>, now: Timestamp) {
        let (Writing { key, prover, what }, Some(stored)) = (writing, stored) else {
            return;
        };
        match what {
            What::End { sequence, .. } if sequence != stored.sequence => {}
            What::End {
                place,
                end,
                heard,
                trace,
                ..
            } => {
                let ran = heard.map_or(Duration::ZERO, |(_, ran)| ran);
                let lost = Lost {
                    key,
                    result: reports::lost(stored.task, prover.name, end, ran),
                    end,
                    trace: trace.unwrap_or(stored.trace),
                    released_at: stored.stored_at,
                    heard,
                };
                // The end is stored before the delivery ends, so that a crash in between costs a second run and never
                // the task.
                self.at_once.push_front(Op::Acknowledge(place));
                self.at_once.push_front(Op::StoreEnd(Box::new(lost)));
            }
            What::Copy(because, trace) => {
                let copy = SecondCopy {
                    key,
                    ready: reports::second_copy(stored.task, prover.name.clone(), now),
                    prover,
                    because,
                    trace: trace.unwrap_or(stored.trace),
                };
                self.at_once.push_front(Op::StoreCopy(Box::new(copy)));
            }
        }
    }

    /// Handles the answer about a pipeline of which a proof is superfluous: its attempts may be allowed to finish.
    pub fn rest_read(&mut self, order: Order, rest: Option<Rest>) {
        if rest != Some(Rest::Finish) {
            self.at_once.push_front(Op::Stop(order));
        }
    }
}

fn settle<P>(held: Held, wish: Wish, found: Found<P>) -> Op<P> {
    let Found { sequence, place, .. } = found;
    match wish {
        Wish::GiveBack => Op::GiveBack { place, unheld: None },
        Wish::Extend => Op::Extend(place),
        Wish::Report {
            prover,
            end,
            heard_at,
        } => {
            let ran = Duration::from_millis(held.running_ms.unwrap_or(0));
            let what = What::End {
                sequence,
                place,
                end,
                heard: Some((heard_at, ran)),
                trace: Some(held.trace),
            };
            let key = held.header.key();
            Op::ReadTask(Writing { key, prover, what })
        }
    }
}
