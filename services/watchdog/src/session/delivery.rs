//! The fates of deliveries that their processes cannot settle, once the broker was asked about them.

use super::{
    Session,
    op::{Delivery, Errand, Found, Lost, Op, Stored, Writing},
};
use crate::{
    decide::{Because, Reason},
    reports,
    unheld::{Fate, Unheld},
};
use push0_domain::{
    Participant, Timestamp,
    message::{Role, TaskResult},
    pipeline::Rest,
    subject::AttemptKey,
    task::AttemptId,
    trace::TraceContext,
};
use std::time::Duration;

impl<P> Session<P> {
    /// Handles the list of attempts in TASKS, or in CHECKS for verifiers.
    pub fn looked(&mut self, role: Role, mut present: Vec<AttemptKey>, now: Timestamp) {
        if role == Role::Verifier {
            self.unverified.present(&present.iter().cloned().collect());
            let doubtful = self.unverified.doubtful(&present);
            self.at_once.extend(doubtful.into_iter().map(Op::ReadCheck));
            present.retain(|key| !self.unverified.rests(key, now));
        }
        // One delivery is settled before the next is looked up, and CHECKS is looked at after TASKS.
        for Unheld { key, role, fate } in self.core.look(role, present, now).into_iter().rev() {
            let errand = Errand::Unheld(fate);
            self.at_once.push_front(Op::Locate(role, key, errand));
        }
    }

    /// Handles the answer about a delivery; `None` if there is no message of the attempt, or no consumer for it.
    pub fn located(&mut self, role: Role, key: AttemptKey, errand: Errand, found: Option<Found<P>>) {
        let op = match errand {
            Errand::Unheld(fate) => self.pass_on(role, key, fate, found),
            Errand::GiveBack(sequence) => place_at(sequence, found).map(|place| Op::GiveBack(place, None)),
            Errand::Extend(sequence) => place_at(sequence, found).map(Op::Extend),
            Errand::Report(lost) => {
                place_at(lost.sequence, found).map(|place| Op::ReadTask(key, Writing::End(lost, place)))
            }
        };
        if let Some(op) = op {
            self.at_once.push_front(op);
        }
    }

    /// Passes on a delivered unheld attempt. An undelivered one waits for a process. An attempt whose delivery was
    /// acknowledged is over, and is removed.
    fn pass_on(&mut self, role: Role, key: AttemptKey, fate: Fate, found: Option<Found<P>>) -> Option<Op<P>> {
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
        let writing = match fate {
            Fate::Extended => return Some(Op::Extend(place)),
            Fate::Lost => return Some(Op::GiveBack(place, Some(key))),
            Fate::Suspect => return None,
            Fate::Doubted(prover) => Writing::Copy(prover, Because::Silent, None),
            Fate::Fell(prover, end) => {
                let lost = Lost {
                    prover,
                    end,
                    sequence,
                    heard: None,
                    trace: TraceContext::default(),
                };
                Writing::End(lost, place)
            }
        };
        Some(Op::ReadTask(key, writing))
    }

    /// Handles the answer about a task; `None` if it was acknowledged or purged, so nothing is left to write.
    pub fn task_read(
        &mut self,
        key: AttemptKey,
        writing: Writing<P>,
        stored: Option<Stored>,
        now: Timestamp,
    ) {
        let Some((task, sequence, stored_at, stored_trace)) = stored else {
            return;
        };
        match writing {
            // Another message replaced the one that was delivered.
            Writing::End(lost, _) if lost.sequence != sequence => {}
            Writing::End(mut lost, place) => {
                let ran = lost.heard.map_or(Duration::ZERO, |(_, ran)| ran);
                if lost.heard.is_none() {
                    lost.trace = stored_trace;
                }
                let result = reports::lost(task, lost.prover.name.clone(), lost.end, ran);
                // The end is stored before the delivery ends, so that a crash in between costs a second run and never
                // the task.
                self.at_once.push_front(Op::Acknowledge(place));
                self.at_once
                    .push_front(Op::StoreEnd(Box::new(result), lost, stored_at));
            }
            Writing::Copy(prover, because, trace) => {
                let ready = Box::new(reports::second_copy(task, prover.name, now));
                let trace = trace.unwrap_or(stored_trace);
                self.at_once.push_front(Op::StoreCopy(key, because, ready, trace));
            }
        }
    }

    /// Handles the answer about a check on which verifiers fail; `None` if it has gone or is not to be believed. Each
    /// attempt in the task's budget may be followed by another, so that no number of hostile provers makes work without end.
    pub fn check_read(&mut self, key: AttemptKey, check: Option<(TaskResult, TraceContext)>, now: Timestamp) {
        if let Some((result, trace)) = check
            && result.header.attempt < result.header.attempts_max
            && let Some(ready) = reports::copy_of_doubted(result, now)
        {
            self.at_once
                .push_front(Op::StoreCopy(key, Because::Doubted, Box::new(ready), trace));
        }
    }

    /// Handles the answer about a pipeline with a superfluous proof, which the pipeline may let finish.
    pub fn rest_read(&mut self, prover: Participant, attempt: AttemptId, rest: Option<Rest>) {
        if rest != Some(Rest::Finish) {
            self.at_once
                .push_front(Op::Stop(prover, attempt, Reason::Emitted));
        }
    }
}

/// Returns the place of a message, if that is the one of this lease: a lease may name any sequence, and another message
/// may have replaced it.
fn place_at<P>(sequence: u64, found: Option<Found<P>>) -> Option<P> {
    let found = found.filter(|found| found.sequence == sequence);
    found.map(|found| found.place)
}
