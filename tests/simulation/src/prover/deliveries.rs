//! Deliveries of tasks and checks, from the broker to provers and verifiers with a free slot.

use super::{Act, Prover};
use crate::{
    broker::{Body, Stream},
    world::{Event, MS, World},
};
use push0_domain::ZkvmId;
use std::rc::Rc;

const ACK_WAIT: u64 = 5000 * MS;

impl World {
    /// Delivers waiting work to provers and verifiers with a free slot.
    pub(crate) fn hand_out(&mut self) {
        let kinds: Vec<_> = self.broker.backlogs.keys().cloned().collect();
        for (stream, zkvm) in kinds {
            loop {
                let now = self.now;
                let wants = |p: &Prover| {
                    p.up && p.rests_until <= now && p.takes() == stream && p.zkvm == zkvm && p.free() > 0
                };
                let willing: Vec<usize> = (0..self.provers.len())
                    .filter(|at| wants(&self.provers[*at]))
                    .collect();
                if willing.is_empty() {
                    break;
                }
                let Some((sequence, deliveries, body)) = self.next_work(stream, &zkvm) else {
                    break;
                };
                let at = self.chance.one_of(&willing);
                let prover = &mut self.provers[at];
                prover.coming += 1;
                let epoch = prover.epoch;
                let hop = self.hop();
                self.after(
                    hop,
                    Event::Prover(at, epoch, Act::Deliver(stream, sequence, deliveries, body)),
                );
                self.after(ACK_WAIT, Event::Expire(stream, sequence, deliveries));
            }
        }
    }

    fn next_work(&mut self, stream: Stream, zkvm: &ZkvmId) -> Option<(u64, u32, Rc<Body>)> {
        let now = self.now;
        loop {
            let backlog = self.broker.backlogs.get_mut(&(stream, zkvm.clone()))?;
            let sequence = backlog.again.pop_front().or_else(|| backlog.fresh.pop_front())?;
            if let Some(message) = self.broker.queue(stream).messages.get_mut(&sequence) {
                message.deliveries += 1;
                message.held_at = Some(now);
                return Some((sequence, message.deliveries, message.body.clone()));
            }
        }
    }

    pub(crate) fn progress(&mut self, stream: Stream, sequence: u64, delivery: u32) {
        let now = self.now;
        if let Some(message) = self.broker.queue(stream).messages.get_mut(&sequence)
            && message.deliveries == delivery
            && message.held_at.is_some()
        {
            message.held_at = Some(now);
        }
    }

    /// Lets the broker wait longer for a delivery. The broker does not check who asks.
    pub(crate) fn extend(&mut self, stream: Stream, sequence: u64) {
        let now = self.now;
        if let Some(message) = self.broker.queue(stream).messages.get_mut(&sequence) {
            message.held_at = message.held_at.map(|_| now);
        }
    }

    pub(crate) fn expire(&mut self, stream: Stream, sequence: u64, delivery: u32) {
        let Some(message) = self.broker.queue(stream).messages.get(&sequence) else {
            return;
        };
        match message.held_at {
            Some(held_at) if message.deliveries == delivery => {
                if self.now.0 >= held_at.0 + ACK_WAIT {
                    self.again(stream, sequence);
                } else {
                    self.at(held_at.0 + ACK_WAIT, Event::Expire(stream, sequence, delivery));
                }
            }
            _ => {}
        }
    }

    /// Queues a message for redelivery. The request may come from any process: the broker does not check
    /// whether the sender had the delivery.
    pub(crate) fn again(&mut self, stream: Stream, sequence: u64) {
        let Some(message) = self.broker.queue(stream).messages.get_mut(&sequence) else {
            return;
        };
        message.held_at = None;
        let zkvm = match &*message.body {
            Body::Task(task) => task.header.zkvm.clone(),
            Body::Check(result) => result.header.zkvm.clone(),
            _ => return,
        };
        let backlog = self.broker.backlogs.entry((stream, zkvm)).or_default();
        if !backlog.again.contains(&sequence) && !backlog.fresh.contains(&sequence) {
            backlog.again.push_back(sequence);
        }
        self.hand_out();
    }
}
