//! Leadership: one active instance of a role, a standby that takes over within a second.
//!
//! The leader renews a fact every [`RENEW_EVERY`]; a candidate that sees the fact unchanged for [`TERM`]
//! by its own clock replaces it by compare-and-set. The leader also listens on a subject of its role:
//! where nobody listens, the leader's connection has ended, and its successor need not wait for the
//! term's end. A leader that was frozen may believe a moment longer that it leads. That is harmless,
//! since every effect of a leader is idempotent or itself a compare-and-set: leadership saves work, it
//! does not guard correctness.
//!
//! A candidate that keeps losing the role asks for it more slowly: two processes that are both too slow
//! for the work would otherwise take the role from each other for ever, and neither would get it done.

mod contest;

pub use contest::Contest;

use crate::{Bucket, Bus, BusError, Facts, Signals};
use async_nats::client::RequestErrorKind;
use contest::Losses;
use futures::{FutureExt, future::BoxFuture};
use push0_domain::subject;
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How often the leader renews.
const RENEW_EVERY: Duration = Duration::from_millis(150);
/// How long a leader may be silent: four renewals, so that one lost message or a long pause of the
/// scheduler does not depose it, and a takeover still ends well within a second.
const TERM: Duration = Duration::from_millis(600);
const _: () = assert!(TERM.as_millis() >= 3 * RENEW_EVERY.as_millis());
/// How long a renewal may take. One that was sent to a broker that is gone is not waited for: the next one
/// may find its successor, before a candidate has seen the role unchanged for a term.
const RENEW_WITHIN: Duration = Duration::from_millis(300);
/// How long a leader goes on while no renewal is answered: while the fact's stream elects a leader, 4 to 9 s,
/// no candidate can take the role either.
const UNANSWERED_MAX: Duration = Duration::from_secs(10);
/// Every how many renewals a leader reports whether it still counts as one that loses its role again and
/// again: some ten seconds.
const REPORT_EVERY: u64 = 64;
/// How long the broker may take to say that nobody listens.
const ASK_MAX: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Holder {
    /// Who leads; nobody if it is empty.
    instance: String,
    renewal: u64,
}

/// Told when a role is lost again and again, and when that is over.
type Report = dyn Fn(Option<&Contest>) + Send + Sync;

/// A candidate for a role, for as long as its process lives.
#[derive(Clone)]
pub struct Leadership {
    bus: Bus,
    role: String,
    key: String,
    /// Where the leader listens. Candidates ask there, and nobody answers.
    subject: String,
    instance: String,
    losses: Arc<Mutex<Losses>>,
    on_loss: Arc<dyn Fn() + Send + Sync>,
    report: Arc<Report>,
}

/// A won term, to be renewed until it is lost or resigned.
pub struct Term {
    candidate: Leadership,
    facts: Facts<Holder>,
    revision: u64,
    renewal: u64,
    renewed_at: Instant,
    renew_at: Instant,
    renewing: Option<BoxFuture<'static, Result<Option<u64>, BusError>>>,
    /// The subscription by which candidates see that this process is connected. Their questions are read
    /// and dropped: unread, they would keep the connection's buffers in memory.
    presence: Signals,
}

impl Leadership {
    /// A candidate for `role` (tokens of a key, such as `dispatcher` or `collector.demo`).
    pub fn candidate(bus: &Bus, role: &str) -> Self {
        Self {
            bus: bus.clone(),
            role: role.to_owned(),
            key: format!("leader.{role}"),
            subject: subject::leader(role),
            instance: format!("{:016x}", rand::random::<u64>()),
            losses: Arc::default(),
            on_loss: Arc::new(|| ()),
            report: Arc::new(|_| ()),
        }
    }

    /// Calls `on_loss` whenever another process takes the role from this one, and `report` when that
    /// happens again and again, and when it is over.
    #[must_use]
    pub fn watched(
        mut self,
        on_loss: impl Fn() + Send + Sync + 'static,
        report: impl Fn(Option<&Contest>) + Send + Sync + 'static,
    ) -> Self {
        (self.on_loss, self.report) = (Arc::new(on_loss), Arc::new(report));
        self
    }

    /// Takes back what was reported: this process asks for the role no more.
    pub fn withdraw(&self) {
        (self.report)(None);
    }

    /// Waits until this candidate leads.
    pub async fn win(&self) -> Result<Term, BusError> {
        if let Some(pause) = self.contest() {
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
        }
        let facts = self.bus.facts::<Holder>(Bucket::State).await?;
        let mut seen: Option<(u64, Instant)> = None;
        loop {
            let current = facts.get(&self.key).await?;
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
                if let Some(revision) = facts.swap(&self.key, &holder, revision).await? {
                    return Ok(Term {
                        candidate: self.clone(),
                        facts,
                        revision,
                        renewal: 0,
                        renewed_at: now,
                        renew_at: now + RENEW_EVERY,
                        renewing: None,
                        presence,
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

    fn losses(&self) -> std::sync::MutexGuard<'_, Losses> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_loss(&self) {
        self.losses().note(Instant::now());
        (self.on_loss)();
        self.contest();
    }

    /// Reports whether the role is lost again and again; if so, how long to leave it to others.
    fn contest(&self) -> Option<Duration> {
        let contest = self.losses().contest(&self.role, Instant::now());
        (self.report)(contest.as_ref());
        contest.map(|contest| contest.pause())
    }

    /// Renews the term of this revision; the new revision, or none if another leads.
    async fn renew(self, facts: Facts<Holder>, revision: u64, renewal: u64) -> Result<Option<u64>, BusError> {
        let holder = Holder {
            instance: self.instance.clone(),
            renewal,
        };
        let renewed = facts.swap(&self.key, &holder, revision).await?;
        if renewed.is_some() {
            return Ok(renewed);
        }
        // An earlier renewal may have been stored although its answer was lost.
        let current = facts.get(&self.key).await?;
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
            let renewed = tokio::select! {
                renewed = renewed(
                    &mut self.renewing,
                    self.renew_at,
                    &self.candidate,
                    &self.facts,
                    (self.revision, self.renewal + 1),
                ) => renewed,
                question = self.presence.next() => match question {
                    Ok(_) => continue,
                    // The connection is closed for good: this process ends.
                    Err(_) => return std::future::pending().await,
                },
            };
            self.renewing = None;
            let now = Instant::now();
            self.renew_at = now + RENEW_EVERY;
            match renewed {
                Ok(Some(revision)) => {
                    self.revision = revision;
                    self.renewal += 1;
                    self.renewed_at = now;
                    if self.renewal.is_multiple_of(REPORT_EVERY) {
                        self.candidate.contest();
                    }
                    continue;
                }
                // The stream of facts may have no leader. Where it has one, and another candidate has the
                // role by now, the next answer says so; until then both do the same work.
                Err(_) if now.duration_since(self.renewed_at) < UNANSWERED_MAX => continue,
                Ok(None) | Err(_) => {}
            }
            self.candidate.note_loss();
            return;
        }
    }

    /// How many questions of candidates wait to be read; none while the term is held.
    pub fn unread(&mut self) -> usize {
        std::iter::from_fn(|| self.presence.next().now_or_never()).count()
    }

    /// Gives the role up, so that a standby need not wait for the term's end. A term that was lost
    /// leaves its successor alone: hence a swap, not a removal.
    pub async fn resign(self) {
        let nobody = Holder {
            instance: String::new(),
            renewal: self.renewal,
        };
        let key = &self.candidate.key;
        if let Err(error) = self.facts.swap(key, &nobody, self.revision).await {
            tracing::debug!(%error, "the role is left to expire");
        }
    }
}

/// Waits until it is time to renew, renews, and answers with how that went.
async fn renewed(
    renewing: &mut Option<BoxFuture<'static, Result<Option<u64>, BusError>>>,
    renew_at: Instant,
    candidate: &Leadership,
    facts: &Facts<Holder>,
    (revision, renewal): (u64, u64),
) -> Result<Option<u64>, BusError> {
    tokio::time::sleep_until(renew_at).await;
    let begin = || {
        let renewal = candidate.clone().renew(facts.clone(), revision, renewal);
        let in_time = tokio::time::timeout(RENEW_WITHIN, renewal);
        let late = BusError::unavailable(candidate.key.clone(), "the renewal is not answered");
        in_time.map(|renewed| renewed.unwrap_or(Err(late))).boxed()
    };
    renewing.get_or_insert_with(begin).await
}
