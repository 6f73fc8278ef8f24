//! Looks up deliveries at the broker.

use super::{
    Active,
    place::{Place, place_of},
};
use crate::session::op::{Delivery, Found};
use push0_bus::{BusError, Stream, now};
use push0_domain::{
    message::Role,
    subject::{self, AttemptKey, Kind},
};
use serde::de::IgnoredAny;

/// Most messages of a stream to compare with the leases. CHECKS only holds more while there are far too few
/// verifiers. Then a delivery in no lease waits for the broker's ack wait of 5 s.
const LOOK_MAX: u64 = 30_000;

impl Active<'_> {
    /// Lists the attempts in TASKS or CHECKS.
    pub(super) async fn look(&mut self, role: Role) -> Result<(), BusError> {
        let (stream, kind) = match role {
            Role::Prover => (Stream::Tasks, Kind::Task),
            Role::Verifier => (Stream::Checks, Kind::Check),
        };
        self.handed.clear();
        if self.bus.level(stream).await?.messages > LOOK_MAX {
            return Ok(());
        }
        let subjects = self.bus.subjects(stream, &subject::all(kind)).await?;
        let keys = subjects
            .iter()
            .filter_map(|(subject, _)| subject::attempt_of(subject, kind));
        self.session.looked(role, keys.collect(), now());
        Ok(())
    }

    /// Finds the newest message of an attempt. The acknowledgement of its delivery is made from its stream, its consumer
    /// and its sequence.
    pub(super) async fn locate(
        &mut self,
        role: Role,
        key: &AttemptKey,
        is_unheld: bool,
    ) -> Result<Option<Found<Place>>, BusError> {
        let (stream, consumer, subject) = place_of(role, key);
        // A look asks about a consumer once, and before it asks about messages: one delivered meanwhile still waits.
        if is_unheld && !self.handed.contains_key(&key.zkvm) {
            let handed = self.bus.handed_out(stream, &consumer).await?;
            self.handed.insert(key.zkvm.clone(), handed);
        }
        let Some(kept) = self.bus.last::<IgnoredAny>(stream, &subject).await? else {
            return Ok(None);
        };
        let handed = match self.handed.get(&key.zkvm) {
            Some(handed) if is_unheld => *handed,
            _ => self.bus.handed_out(stream, &consumer).await?,
        };
        let (subject, sequence) = (kept.subject, kept.sequence);
        Ok(handed.map(|handed| Found {
            sequence,
            state: if handed.is_acknowledged(sequence) {
                Delivery::Acknowledged
            } else if handed.unacknowledged > 0 && sequence <= handed.up_to {
                Delivery::Delivered
            } else {
                Delivery::Waits
            },
            place: Place {
                ack: self.bus.ack_at(stream, &consumer, sequence, &handed),
                stream,
                subject,
                sequence,
            },
        }))
    }
}
