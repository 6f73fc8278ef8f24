//! Leadership: one active instance of a role, a standby that takes over within a second.
//!
//! The leader renews a fact every [`RENEW_EVERY`]; whoever sees it unchanged for [`TERM`] by its own
//! clock replaces it by compare-and-set. And it listens on a subject of its role: where nobody
//! listens, the leader's connection has ended, and its successor need not wait for the term's end. A leader that was frozen may believe a moment longer that
//! it leads. That is harmless, since every effect of a leader is idempotent or itself a
//! compare-and-set: leadership saves work, it does not guard correctness.

use crate::{Bucket, Bus, BusError, Facts, Signals};
use async_nats::client::RequestErrorKind;
use futures::{FutureExt, future::BoxFuture};
use push0_domain::subject;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::Instant;

/// How often the leader renews.
const RENEW_EVERY: Duration = Duration::from_millis(150);
/// How long a leader may be silent: four renewals, so that one lost message or a long pause of the
/// scheduler does not depose it, and a takeover still ends well within a second.
const TERM: Duration = Duration::from_millis(600);
const _: () = assert!(TERM.as_millis() >= 3 * RENEW_EVERY.as_millis());
/// How long the broker may take to say that nobody listens.
const ASK_MAX: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Holder {
    /// Who leads; nobody if it is empty.
    instance: String,
    renewal: u64,
}

/// A candidate for a role.
#[derive(Clone)]
pub struct Leadership {
    bus: Bus,
    facts: Facts<Holder>,
    key: String,
    /// Where the leader listens. Nothing is ever said there.
    subject: String,
    instance: String,
}

/// A won term, to be renewed until it is lost or resigned.
pub struct Term {
    candidate: Leadership,
    revision: u64,
    renewal: u64,
    renewed_at: Instant,
    renew_at: Instant,
    renewing: Option<BoxFuture<'static, Result<Option<u64>, BusError>>>,
    /// Held, not read: that somebody listens is what it says.
    _presence: Signals,
}

impl Leadership {
    /// A candidate for `role` (tokens of a key, such as `dispatcher` or `collector.demo`).
    pub async fn candidate(bus: &Bus, role: &str) -> Result<Self, BusError> {
        let facts = bus.facts(Bucket::State).await?;
        let instance = format!("{:016x}", rand::random::<u64>());
        Ok(Self {
            bus: bus.clone(),
            facts,
            key: format!("leader.{role}"),
            subject: subject::leader(role),
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
                Some(fact) if fact.value.as_ref().is_none_or(|h| h.instance.is_empty()) => {
                    Some(fact.revision)
                }
                Some(fact) => {
                    let since = match seen {
                        Some((revision, since)) if revision == fact.revision => since,
                        _ => now,
                    };
                    seen = Some((fact.revision, since));
                    let is_over = now.duration_since(since) >= TERM || self.is_deserted().await;
                    is_over.then_some(fact.revision)
                }
            };
            if let Some(revision) = free_at {
                let holder = Holder {
                    instance: self.instance.clone(),
                    renewal: 0,
                };
                // Before the fact: whoever sees the fact finds somebody who listens.
                let presence = self.bus.listen([self.subject.clone()]).await?;
                if let Some(revision) = self.facts.swap(&self.key, &holder, revision).await? {
                    return Ok(Term {
                        candidate: self.clone(),
                        revision,
                        renewal: 0,
                        renewed_at: now,
                        renew_at: now + RENEW_EVERY,
                        renewing: None,
                        _presence: presence,
                    });
                }
            }
            tokio::time::sleep(RENEW_EVERY / 2).await;
        }
    }
}

impl Leadership {
    /// Whether nobody listens where the leader does: its connection has ended. One that is frozen or
    /// cut off still listens as far as the broker knows, and has its term.
    async fn is_deserted(&self) -> bool {
        let question = async_nats::Request::new().timeout(Some(ASK_MAX));
        let asked = self.bus.client.send_request(self.subject.clone(), question).await;
        asked.is_err_and(|error| error.kind() == RequestErrorKind::NoResponders)
    }

    /// Renews the term of this revision; the new revision, or none if another leads.
    async fn renew(self, revision: u64, renewal: u64) -> Result<Option<u64>, BusError> {
        let holder = Holder {
            instance: self.instance.clone(),
            renewal,
        };
        let renewed = self.facts.swap(&self.key, &holder, revision).await?;
        if renewed.is_some() {
            return Ok(renewed);
        }
        // An earlier renewal may have been stored although its answer was lost.
        let current = self.facts.get(&self.key).await?;
        let ours = current.filter(|f| f.value.as_ref().is_some_and(|h| h.instance == self.instance));
        Ok(ours.map(|fact| fact.revision))
    }
}

impl Term {
    /// Does this while the term is renewed; fails when it is lost.
    pub async fn during<T>(
        &mut self,
        work: impl Future<Output = Result<T, BusError>>,
    ) -> Result<T, BusError> {
        tokio::select! {
            () = self.hold() => Err(BusError::unavailable(self.candidate.key.clone(), "another has taken over")),
            done = work => done,
        }
    }

    /// Renews the term for as long as possible; returns when it is lost.
    ///
    /// Cancel safe: in a loop that selects, the renewals go on where they were.
    pub async fn hold(&mut self) {
        loop {
            tokio::time::sleep_until(self.renew_at).await;
            let renewal = match &mut self.renewing {
                Some(renewal) => renewal,
                idle => idle.insert(
                    self.candidate
                        .clone()
                        .renew(self.revision, self.renewal + 1)
                        .boxed(),
                ),
            };
            let renewed = renewal.await;
            self.renewing = None;
            let now = Instant::now();
            self.renew_at = now + RENEW_EVERY;
            match renewed {
                Ok(Some(revision)) => {
                    self.revision = revision;
                    self.renewal += 1;
                    self.renewed_at = now;
                }
                Ok(None) => return,
                // The broker may be away for all; nobody can have taken over before the term is out.
                Err(_) if now.duration_since(self.renewed_at) < TERM => {}
                Err(_) => return,
            }
        }
    }

    /// Gives the role up, so that a standby need not wait for the term's end. A term that was lost
    /// leaves its successor alone: hence a swap, not a removal.
    pub async fn resign(self) {
        let nobody = Holder {
            instance: String::new(),
            renewal: self.renewal,
        };
        let Leadership { facts, key, .. } = &self.candidate;
        if let Err(error) = facts.swap(key, &nobody, self.revision).await {
            tracing::debug!(%error, "the role is left to expire");
        }
    }
}
