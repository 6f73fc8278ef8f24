//! Removal of checks that are not to be believed.
//!
//! A verifier cannot read the keys of the seals. Where such a check is about a block without facts, it would be tried
//! again for ever, and CHECKS, which is nearly full, lets no work be released.

use super::{ROUND_MAX, Sweep};
use push0_bus::{BusError, Stream};
use push0_domain::{
    Participant, Timestamp,
    message::TaskResult,
    subject::{self, Kind, participant},
};
use std::{collections::BTreeMap, time::Duration};

/// How long a check lies before it may be removed. By then its seal is compared with keys that were read after the
/// dispatcher wrote it, also if the keys have changed.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// How many checks are read in one round. The next round goes on behind them.
const READ: usize = 128;

impl Sweep<'_> {
    /// Removes the refused ones of the next checks.
    pub(super) async fn refused_checks(&mut self, now: Timestamp) -> Result<(), BusError> {
        let all = subject::all(Kind::Check);
        let mut removed = BTreeMap::<Participant, u64>::new();
        for _ in 0..ROUND_MAX / READ {
            let page = self
                .bus
                .scan::<TaskResult>(Stream::Checks, &all, self.checks_from, READ)
                .await?;
            self.checks_from = page.last().map_or(1, |last| last.sequence + 1);
            if page.is_empty() {
                break;
            }
            for kept in page {
                // Verifiers acknowledge unreadable checks.
                let Ok(result) = kept.body else { continue };
                let is_settled = now.since(kept.stored_at) >= SETTLED_AFTER;
                if is_settled
                    && self
                        .seals
                        .admit(&kept.subject, Kind::Check, &result)
                        .await?
                        .is_err()
                {
                    self.bus
                        .purge_up_to(Stream::Checks, &kept.subject, kept.sequence)
                        .await?;
                    if let Some(spoken) = participant::spoken(&kept.subject) {
                        *removed.entry(spoken.who).or_default() += 1;
                    }
                }
            }
        }
        for (who, count) in removed {
            self.swept(&who, Stream::Checks.name(), count);
        }
        Ok(())
    }
}
