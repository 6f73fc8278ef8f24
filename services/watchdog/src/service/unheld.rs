//! Passes on deliveries in no lease.

use super::{Active, act::Lost, place::place_of};
use crate::{
    decide::Because,
    unheld::{Fate, Unheld},
};
use push0_bus::{BusError, Handed, Stream, now};
use push0_domain::{
    ZkvmId,
    message::Role,
    subject::{self, AttemptKey, Kind},
};
use serde::de::IgnoredAny;
use std::{collections::HashMap, time::Duration};

/// Most messages of a stream to compare with the leases. CHECKS only holds more while there are far too few
/// verifiers. Then a delivery in no lease waits for the broker's ack wait of 5 s.
const LOOK_MAX: u64 = 30_000;

impl Active<'_> {
    /// Compares TASKS and CHECKS with the leases, and passes on deliveries in no lease.
    pub(super) async fn look(&mut self) -> Result<(), BusError> {
        let streams = [
            (Stream::Tasks, Kind::Task, Role::Prover),
            (Stream::Checks, Kind::Check, Role::Verifier),
        ];
        for (stream, kind, role) in streams {
            if self.bus.level(stream).await?.messages > LOOK_MAX {
                continue;
            }
            let subjects = self.bus.subjects(stream, &subject::all(kind)).await?;
            let keys = subjects
                .iter()
                .filter_map(|(subject, _)| subject::attempt_of(subject, kind));
            let mut keys: Vec<AttemptKey> = keys.collect();
            if role == Role::Verifier {
                self.unverified.present(&keys.iter().cloned().collect());
                keys.retain(|key| !self.unverified.rests(key, now()));
            }
            let unheld = self.core.look(role, keys, now());
            let mut handed = HashMap::new();
            for unheld in unheld {
                self.pass_on(stream, unheld, &mut handed).await?;
            }
        }
        Ok(())
    }

    /// Passes on an unheld attempt if it was delivered. Otherwise it waits for a prover. An attempt whose
    /// delivery was acknowledged is over, and is removed.
    async fn pass_on(
        &mut self,
        stream: Stream,
        unheld: Unheld,
        handed: &mut HashMap<ZkvmId, Option<Handed>>,
    ) -> Result<(), BusError> {
        let Unheld { key, role, fate } = unheld;
        let (_, consumer, subject) = place_of(role, &key);
        if !handed.contains_key(&key.zkvm) {
            let now = self.bus.handed_out(stream, &consumer).await?;
            handed.insert(key.zkvm.clone(), now);
        }
        let out = handed.get(&key.zkvm).copied().flatten();
        let kept = self.bus.last::<IgnoredAny>(stream, &subject).await?;
        let (subject, stored) = kept.map_or((subject, None), |kept| (kept.subject, Some(kept.sequence)));
        let is_over = |sequence: &u64| out.is_some_and(|out| out.is_acknowledged(*sequence));
        if let Some(sequence) = stored.filter(is_over) {
            tracing::info!(attempt.key = %key, stream = stream.name(), "removing an acknowledged message");
            self.metrics.acts.with_label_values(&["removed"]).inc();
            return self.bus.purge_up_to(stream, &subject, sequence).await;
        }
        let delivered = stored.zip(out);
        let delivered = delivered.filter(|(sequence, out)| out.unacknowledged > 0 && *sequence <= out.up_to);
        let Some((sequence, out)) = delivered else {
            self.core.waits(role, &key);
            return Ok(());
        };
        let ack = self.bus.ack_at(stream, &consumer, sequence, &out);
        let (prover, end) = match fate {
            Fate::Fell(prover, end) => (prover, end),
            Fate::Doubted(prover) => return self.second_copy(&key, prover, Because::Silent, None).await,
            Fate::Extended => {
                ack.progress().await;
                return Ok(());
            }
            Fate::Suspect => return Ok(()),
            Fate::Lost => {
                tracing::info!(attempt.key = %key, "delivered but in no lease, giving it to another process");
                ack.give_back(Duration::ZERO).await;
                self.metrics.acts.with_label_values(&["given-back"]).inc();
                return Ok(());
            }
        };
        let kept = self.task(&key).await?;
        let kept = kept.map(|kept| (kept.body, kept.trace, kept.stored_at));
        let Some((Ok(task), trace, released_at)) = kept else {
            return Ok(());
        };
        let lost = Lost {
            trace,
            prover,
            end,
            released_at,
            heard: None,
            ack,
        };
        self.write_end(&key, task, lost).await
    }
}
