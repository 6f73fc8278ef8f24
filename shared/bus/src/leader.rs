//! Leadership: one active instance of a role, a standby that takes over within a second.
//!
//! The leader renews a fact every [`RENEW_EVERY`]; whoever sees it unchanged for [`TERM`] by its own
//! clock replaces it by compare-and-set. A leader that was frozen may believe a moment longer that
//! it leads. That is harmless, since every effect of a leader is idempotent or itself a
//! compare-and-set: leadership saves work, it does not guard correctness.

use crate::{Bucket, Bus, BusError, Facts};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::Instant;

/// How often the leader renews.
const RENEW_EVERY: Duration = Duration::from_millis(150);
/// How long a leader may be silent: four renewals, so that one lost message or a long pause of the
/// scheduler does not depose it, and a takeover still ends well within a second.
const TERM: Duration = Duration::from_millis(600);
const _: () = assert!(TERM.as_millis() >= 3 * RENEW_EVERY.as_millis());

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Holder {
    instance: String,
    renewal: u64,
}

/// A candidate for a role.
#[derive(Clone)]
pub struct Leadership {
    facts: Facts<Holder>,
    key: String,
    instance: String,
}

/// A won term, to be renewed until it is lost or resigned.
pub struct Term {
    candidate: Leadership,
    revision: u64,
    renewal: u64,
    renewed_at: Instant,
}

impl Leadership {
    /// A candidate for `role` (tokens of a key, such as `dispatcher` or `collector.demo`).
    pub async fn candidate(bus: &Bus, role: &str) -> Result<Self, BusError> {
        let facts = bus.facts(Bucket::State).await?;
        let instance = format!("{:016x}", rand::random::<u64>());
        Ok(Self {
            facts,
            key: format!("leader.{role}"),
            instance,
        })
    }

    /// Waits until this candidate leads.
    pub async fn win(&self) -> Result<Term, BusError> {
        let mut seen: Option<(u64, Instant)> = None;
        loop {
            let current = self.facts.get(&self.key).await?;
            let now = Instant::now();
            let free_at = match &current {
                None => Some(0),
                Some(fact) if fact.value.is_none() => Some(fact.revision),
                Some(fact) => match seen {
                    Some((revision, since)) if revision == fact.revision => {
                        (now.duration_since(since) >= TERM).then_some(revision)
                    }
                    _ => {
                        seen = Some((fact.revision, now));
                        None
                    }
                },
            };
            if let Some(revision) = free_at {
                let holder = Holder {
                    instance: self.instance.clone(),
                    renewal: 0,
                };
                if let Some(revision) = self.facts.swap(&self.key, &holder, revision).await? {
                    return Ok(Term {
                        candidate: self.clone(),
                        revision,
                        renewal: 0,
                        renewed_at: now,
                    });
                }
            }
            tokio::time::sleep(RENEW_EVERY / 2).await;
        }
    }
}

impl Term {
    /// Renews the term for as long as possible; returns when it is lost.
    pub async fn hold(&mut self) {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            let holder = Holder {
                instance: self.candidate.instance.clone(),
                renewal: self.renewal + 1,
            };
            match self
                .candidate
                .facts
                .swap(&self.candidate.key, &holder, self.revision)
                .await
            {
                Ok(Some(revision)) => {
                    self.revision = revision;
                    self.renewal += 1;
                    self.renewed_at = Instant::now();
                }
                Ok(None) => return,
                // The broker may be away for all; nobody can have taken over before the term is out.
                Err(_) if self.renewed_at.elapsed() < TERM => {}
                Err(_) => return,
            }
        }
    }

    /// Gives the role up, so that a standby need not wait for the term's end.
    pub async fn resign(self) {
        if let Err(error) = self.candidate.facts.delete(&self.candidate.key).await {
            tracing::debug!(%error, "the role is left to expire");
        }
    }
}
