//! The keys of the seals, as stored, and reports compared with them.

use crate::{Bucket, Bus, BusError, Facts};
use push0_domain::{
    SealKeys,
    message::{Lease, TaskResult},
    report::{self, Dropped, Refusal},
    seal_keys::SealKey,
    subject::{Kind, Report},
};
use std::time::{Duration, Instant};

/// The key of the fact that holds the keys.
const KEYS: &str = "keys";
/// How often the keys are read again at most, because a seal is wrong. A flood of wrong seals causes no flood of reads.
const READ_EVERY: Duration = Duration::from_secs(1);

/// The keys of the deployment. A wrong seal has them read again, so a rotation needs no restart of the readers.
pub struct Seals {
    facts: Facts<SealKeys>,
    keys: SealKeys,
    read_at: Instant,
}

impl Bus {
    /// Reads the keys of the seals.
    pub async fn seals(&self) -> Result<Seals, BusError> {
        let facts = self.facts(Bucket::Seals).await?;
        let keys = read(&facts).await?;
        Ok(Seals {
            facts,
            keys,
            read_at: Instant::now(),
        })
    }

    /// Draws the first key, unless there is one.
    pub(crate) async fn draw_first_key(&self) -> Result<(), BusError> {
        let facts = self.facts(Bucket::Seals).await?;
        let keys = SealKeys::new(SealKey::new(rand::random()));
        facts.swap(KEYS, &keys, 0).await.map(drop)
    }

    /// Draws a new key, with which the next dispatcher that leads seals. Headers of earlier keys stay valid, those of the
    /// key before the last three excepted.
    pub async fn rotate_seal_key(&self) -> Result<(), BusError> {
        let facts = self.facts::<SealKeys>(Bucket::Seals).await?;
        loop {
            let fact = facts
                .get(KEYS)
                .await?
                .and_then(|fact| Some((fact.value?, fact.revision)));
            let (keys, revision) = fact.ok_or_else(missing)?;
            let keys = keys.rotated(SealKey::new(rand::random()));
            if facts.swap(KEYS, &keys, revision).await?.is_some() {
                return Ok(());
            }
        }
    }
}

fn missing() -> BusError {
    BusError::Missing {
        what: format!("key {KEYS} in {}", Bucket::Seals.name()),
    }
}

async fn read(facts: &Facts<SealKeys>) -> Result<SealKeys, BusError> {
    let fact = facts.get(KEYS).await?;
    fact.and_then(|fact| fact.value).ok_or_else(missing)
}

impl Seals {
    /// Returns the keys as last read.
    pub fn keys(&self) -> &SealKeys {
        &self.keys
    }

    /// Decides whether to believe a report: see [`report::admit`].
    pub async fn admit(
        &mut self,
        subject: &str,
        kind: Kind,
        result: &TaskResult,
    ) -> Result<Result<Report, Refusal>, BusError> {
        let admitted = report::admit(subject, kind, result, &self.keys);
        if admitted == Err(Refusal::Seal) && self.has_changed().await? {
            return Ok(report::admit(subject, kind, result, &self.keys));
        }
        Ok(admitted)
    }

    /// Decides whether to believe a lease, and drops deliveries in it: see [`report::admit_lease`].
    pub async fn admit_lease(
        &mut self,
        subject: &str,
        lease: &mut Lease,
    ) -> Result<Result<Dropped, Refusal>, BusError> {
        let is_wrong = report::fits(lease) && lease.held.iter().any(|held| !self.keys.verify(&held.header));
        if is_wrong {
            self.has_changed().await?;
        }
        Ok(report::admit_lease(subject, lease, &self.keys))
    }

    /// Reads the keys again, unless that was done a moment ago. Returns whether they have changed.
    async fn has_changed(&mut self) -> Result<bool, BusError> {
        if self.read_at.elapsed() < READ_EVERY {
            return Ok(false);
        }
        self.read_at = Instant::now();
        let keys = read(&self.facts).await?;
        let has_changed = keys != self.keys;
        self.keys = keys;
        Ok(has_changed)
    }
}
