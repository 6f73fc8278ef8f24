//! Removal of checks that are not to be believed, that repeat others, and of those whose block has its record.
//!
//! A verifier cannot read the keys of the seals, and takes checks in turn. So each of these checks takes as long as a proof to
//! verify, while others wait behind it. Where a block has no facts, it would be tried again for ever.

use super::{ROUND_MAX, Sweep};
use push0_bus::{BusError, Kept, Stream};
use push0_domain::{
    Participant, PipelineId, Timestamp,
    message::TaskResult,
    output::Output,
    subject::{self, Kind, participant},
    wanted::{Claim, Claims},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

/// How long a check lies before it may be removed. By then its seal is compared with keys that were read after the
/// dispatcher wrote it, also if the keys have changed: they are read again at most once a second.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// How many checks are read in one step of a round. The next round goes on behind the last one.
const READ: usize = 128;
/// After how many removed checks in one round all checks of their participant go.
const FLOOD: u64 = 16;

/// The use of a check.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    /// The collector would not believe a verdict on the check.
    Refused,
    /// The block has the record to which the check was to lead.
    Recorded,
}

impl Sweep<'_> {
    /// Removes the refused ones of the next checks, each of which is read once.
    pub(super) async fn refused_checks(&mut self, now: Timestamp) -> Result<(), BusError> {
        let all = subject::all(Kind::Check);
        let (mut removed, mut outputs) = (BTreeMap::<Participant, u64>::new(), HashMap::new());
        let mut banned = HashSet::new();
        'round: for _ in 0..ROUND_MAX / READ {
            let page = self
                .bus
                .scan::<TaskResult>(Stream::Checks, &all, self.checks_from, READ)
                .await?;
            let is_last = page.len() < READ;
            self.repeated_checks(&page).await?;
            for kept in page {
                if now.since(kept.stored_at) < SETTLED_AFTER {
                    break 'round;
                }
                self.checks_from = kept.sequence + 1;
                let who = participant::spoken(&kept.subject).map(|spoken| spoken.who);
                let Some(who) = who.filter(|who| !banned.contains(who)) else {
                    continue;
                };
                let refused = removed.get(&who).copied().unwrap_or_default();
                let fate = self.fate(&kept, &mut outputs).await?;
                if fate == Fate::Stays {
                    continue;
                }
                let mut count = u64::from(fate == Fate::Refused);
                if refused + count <= FLOOD {
                    self.bus
                        .purge_up_to(Stream::Checks, &kept.subject, kept.sequence)
                        .await?;
                } else {
                    // One by one, they would come faster than they go. Work among them that was released is missed, and
                    // others do it.
                    count = self.bus.purge(Stream::Checks, &who.all(Kind::Check)).await?;
                    banned.insert(who.clone());
                }
                *removed.entry(who).or_default() += count;
            }
            if is_last {
                break;
            }
        }
        for (who, count) in removed {
            self.swept(&who, Stream::Checks.name(), count);
        }
        Ok(())
    }

    /// Removes checks that repeat others. An attempt has one subject and one verdict, so one check of it is enough. A prover
    /// may store a few twice when the broker's answers are lost, and only a flood is told.
    async fn repeated_checks(&mut self, page: &[Kept<TaskResult>]) -> Result<(), BusError> {
        let mut counts = BTreeMap::<&str, u64>::new();
        for kept in page {
            *counts.entry(&kept.subject).or_default() += 1;
        }
        for (subject, _) in counts.into_iter().filter(|(_, count)| *count > 1) {
            let removed = self.bus.purge_but_newest(Stream::Checks, subject).await?;
            match participant::spoken(subject) {
                Some(spoken) if removed > FLOOD => self.swept(&spoken.who, Stream::Checks.name(), removed),
                _ => self.removed("junk", usize::try_from(removed).unwrap_or(usize::MAX)),
            }
        }
        Ok(())
    }

    async fn fate(
        &mut self,
        kept: &Kept<TaskResult>,
        outputs: &mut HashMap<PipelineId, Output>,
    ) -> Result<Fate, BusError> {
        // Verifiers acknowledge unreadable checks.
        let Ok(check) = &kept.body else {
            return Ok(Fate::Stays);
        };
        if self
            .seals
            .admit(&kept.subject, Kind::Check, check)
            .await?
            .is_err()
        {
            return Ok(Fate::Refused);
        }
        let (stage, context) = (&check.header.id.stage, &check.header.context);
        if !outputs.contains_key(&stage.pipeline) {
            let output = match self.bus.output(&stage.pipeline).await {
                // Nothing of a damaged pipeline is removed.
                Err(error) if error.is_damage() => None,
                output => output?,
            };
            let output = output.map(|(output, _)| output).unwrap_or_default();
            outputs.insert(stage.pipeline.clone(), output);
        }
        let claim = Claim {
            announcement: context.first_announcement(),
            ..context.claim()
        };
        let number = stage.first_block().number;
        let is_wanted = |output: &Output| output.assess(number, claim).is_wanted();
        Ok(if outputs.get(&stage.pipeline).is_none_or(is_wanted) {
            Fate::Stays
        } else {
            Fate::Recorded
        })
    }
}
