//! Leadership: one active instance of a role, and standbys ready to take over within a second.
//!
//! The leader renews a fact every [`RENEW_EVERY`]. A candidate replaces the fact by compare-and-set after
//! seeing it unchanged for [`TERM`] by its own clock. The leader also listens on a subject of its role: if
//! the subject has no listener, the leader's connection has ended, and its successor need not wait for the
//! end of the term. A frozen leader may believe for a moment longer in its lead. Two leaders are
//! harmless, since every effect of a leader is idempotent or itself a compare-and-set: leadership saves work
//! and does not guard correctness.
//!
//! A candidate asks for the role less often after repeated losses. Otherwise two processes, both too slow for
//! the work, would take the role from each other for ever, and neither would get the work done.

mod contest;

pub use contest::Contest;

use crate::{
    Bucket, Bus, BusError, Facts, Signals,
    services::{Leads, Seat},
};
use contest::Losses;
use futures::{FutureExt, future::BoxFuture};
use push0_domain::{Timestamp, subject};
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How often the leader renews its term.
const RENEW_EVERY: Duration = Duration::from_millis(150);
/// How long a leader may be silent: four renewals, so a lost message or a long pause of the scheduler does
/// not depose the leader, and a takeover still ends well within a second.
const TERM: Duration = Duration::from_millis(600);
const _: () = assert!(TERM.as_millis() >= 3 * RENEW_EVERY.as_millis());
/// How long a renewal may take. A renewal without an answer is abandoned, because its broker may be gone: the
/// next renewal may reach that broker's successor before a candidate has seen the role unchanged for a term.
const RENEW_WITHIN: Duration = Duration::from_millis(300);
/// How long a leader continues while no renewal is answered. While the stream of the fact elects a leader,
/// which takes 4 to 9 s, no candidate can take the role either.
const UNANSWERED_MAX: Duration = Duration::from_secs(10);
/// The number of renewals after which a leader reports again whether it keeps losing its role:
/// about ten seconds.
const REPORT_EVERY: u64 = 64;
/// How long the broker may take to report a subject without listeners.
const ASK_MAX: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Holder {
    /// The leading instance. Empty after the leader has resigned.
    instance: String,
    renewal: u64,
    /// When the term began, by the clock of the instance. Renewals are counted, and take longer than their distance.
    #[serde(default)]
    began_at: Option<Timestamp>,
}

/// Who leads a role, as the newest renewal of the term says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led {
    /// The leading instance.
    pub instance: String,
    /// How long the term has lasted at least.
    pub lasts: Duration,
}

/// The state of a role as its fact tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    /// Who leads; `None` if the leader has resigned, or before the first leader.
    pub led: Option<Led>,
    /// When the broker stored the last renewal or resignation. A leader renews several times a second.
    pub renewed_at: Option<Timestamp>,
    /// When the term began, by the leader's clock; `None` without a leader.
    pub began_at: Option<Timestamp>,
}

impl Bus {
    /// Returns the state of a role such as `collector.demo`. The leader of an old renewal leads no more.
    pub async fn lead(&self, role: &str) -> Result<Lead, BusError> {
        let facts = self.facts::<Holder>(Bucket::State).await?;
        let fact = facts.look(&key_of(role)).await?.and_then(Result::ok);
        let renewed_at = fact.as_ref().map(|fact| fact.stored_at);
        let holder = fact.and_then(|fact| fact.value);
        let began_at = holder.as_ref().and_then(|holder| holder.began_at);
        let led = holder.and_then(Holder::led);
        Ok(Lead {
            led,
            renewed_at,
            began_at,
        })
    }

    /// Returns who leads a role such as `collector.demo`; `None` if the leader has resigned, or no readable renewal is
    /// stored.
    pub async fn leader_of(&self, role: &str) -> Result<Option<Led>, BusError> {
        Ok(self.lead(role).await?.led)
    }
}

impl Holder {
    /// Returns the term that this fact tells of; `None` after a resignation.
    fn led(self) -> Option<Led> {
        let lasts = RENEW_EVERY.saturating_mul(u32::try_from(self.renewal).unwrap_or(u32::MAX));
        let instance = self.instance;
        (!instance.is_empty()).then_some(Led { instance, lasts })
    }
}

/// Returns the key of the fact by which the leader of a role holds it.
fn key_of(role: &str) -> String {
    format!("leader.{role}")
}

/// Called with a contest when the role is lost repeatedly, and with `None` when the contest is over.
type Report = dyn Fn(Option<&Contest>) + Send + Sync;

/// A candidate for a role, for the lifetime of its process.
#[derive(Clone)]
pub struct Leadership {
    pub(crate) bus: Bus,
    pub(crate) role: String,
    key: String,
    /// The subject on which the leader listens. Candidates send requests there, and the leader answers none.
    subject: String,
    instance: String,
    seat: Arc<Seat>,
    losses: Arc<Mutex<Losses>>,
    on_loss: Arc<dyn Fn() + Send + Sync>,
    report: Arc<Report>,
}

/// Why a term ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Another instance leads.
    Taken,
    /// The broker stored no renewal for 10 s, for this reason.
    Unanswered(String),
}

impl Loss {
    /// Returns the broker's failure, or an `Ok` if another instance has taken the role, as it may at any time.
    pub fn of_broker(self, role: &str) -> Result<(), BusError> {
        match self {
            Self::Taken => Ok(()),
            Self::Unanswered(reason) => Err(BusError::unavailable(format!("the lead as {role}"), reason)),
        }
    }
}

/// A term won by a candidate, renewed until the role is lost or resigned.
pub struct Term {
    candidate: Leadership,
    facts: Facts<Holder>,
    revision: u64,
    renewal: u64,
    began_at: Option<Timestamp>,
    renewed_at: Instant,
    renew_at: Instant,
    renewing: Option<BoxFuture<'static, Result<Option<u64>, BusError>>>,
    /// The subscription by which candidates see that this process is connected. Their requests are read and
    /// dropped: unread, they would fill the connection's buffers.
    presence: Signals,
    _leads: Leads,
}

impl Leadership {
    /// Creates a candidate for `role`, which is one or more tokens of a key, such as
    /// `dispatcher` or `collector.demo`.
    pub fn candidate(bus: &Bus, role: &str) -> Self {
        let instance = format!("{:016x}", rand::random::<u64>());
        Self {
            bus: bus.clone(),
            role: role.to_owned(),
            key: key_of(role),
            subject: subject::leader(role),
            seat: Arc::new(bus.profile.seat(role, &instance)),
            instance,
            losses: Arc::default(),
            on_loss: Arc::new(|| ()),
            report: Arc::new(|_| ()),
        }
    }

    /// Calls `on_loss` whenever this process loses its term. Calls `report` with a contest when the role is
    /// lost repeatedly, and with `None` when the contest is over.
    #[must_use]
    pub fn watched(
        mut self,
        on_loss: impl Fn() + Send + Sync + 'static,
        report: impl Fn(Option<&Contest>) + Send + Sync + 'static,
    ) -> Self {
        (self.on_loss, self.report) = (Arc::new(on_loss), Arc::new(report));
        self
    }

    /// Withdraws the last report, when this process no longer asks for the role.
    pub fn withdraw(&self) {
        (self.report)(None);
    }

    /// Waits until this candidate leads, and returns its term.
    pub async fn win(&self) -> Result<Term, BusError> {
        self.win_reporting(|| ()).await
    }

    /// Waits like [`Self::win`]. Calls `is_served` once it is known that the broker stores the renewals of a
    /// leader: this one, or another that this one stands by for.
    pub async fn win_reporting(&self, is_served: impl Fn()) -> Result<Term, BusError> {
        if let Some(pause) = self.contest() {
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
        }
        let facts = self.bus.facts::<Holder>(Bucket::State).await?;
        let mut seen: Option<(u64, Instant)> = None;
        loop {
            let current = facts.look(&self.key).await?;
            let now = Instant::now();
            let free_at = match &current {
                None => Some(0),
                Some(Ok(fact)) if fact.value.as_ref().is_none_or(|h| h.instance.is_empty()) => {
                    Some(fact.revision)
                }
                // An entry that cannot be read counts as one whose leader does not renew it, and is overwritten.
                Some(fact) => {
                    let there = fact
                        .as_ref()
                        .map_or_else(|revision| *revision, |fact| fact.revision);
                    let since = match seen {
                        Some((revision, since)) if revision == there => since,
                        Some(_) => {
                            is_served();
                            now
                        }
                        None => now,
                    };
                    seen = Some((there, since));
                    let is_over = now.duration_since(since) >= TERM || self.is_deserted().await;
                    is_over.then_some(there)
                }
            };
            if let Some(revision) = free_at {
                let holder = Holder {
                    instance: self.instance.clone(),
                    renewal: 0,
                    began_at: Some(crate::now()),
                };
                // Listens before the fact is stored, so every candidate that reads the fact
                // finds the listener.
                let presence = self.bus.listen([self.subject.clone()]).await?;
                if let Some(revision) = facts.swap(&self.key, &holder, revision).await? {
                    is_served();
                    return Ok(Term {
                        candidate: self.clone(),
                        facts,
                        revision,
                        renewal: 0,
                        began_at: holder.began_at,
                        renewed_at: now,
                        renew_at: now + RENEW_EVERY,
                        renewing: None,
                        presence,
                        _leads: Leads::new(self.seat.clone()),
                    });
                }
            }
            tokio::time::sleep(RENEW_EVERY / 2).await;
            // A standby may wait for days, and its contest ends within a minute.
            self.contest();
        }
    }
}

impl Leadership {
    /// Returns whether the leader's subject has no listener, so its connection has ended. A leader that is
    /// frozen or cut off still listens as far as the broker knows, and keeps its term.
    async fn is_deserted(&self) -> bool {
        self.bus.has_no_listener(self.subject.clone(), ASK_MAX).await
    }

    fn losses(&self) -> std::sync::MutexGuard<'_, Losses> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the end of a term, for whichever reason: a role whose renewals a slow broker does not answer is lost
    /// again and again as well.
    fn lost(&self, loss: Loss) -> Loss {
        self.losses().note(Instant::now());
        (self.on_loss)();
        self.contest();
        loss
    }

    /// Reports whether the role is lost repeatedly. If so, returns how long to leave the role to others.
    fn contest(&self) -> Option<Duration> {
        let contest = self.losses().contest(&self.role, Instant::now());
        (self.report)(contest.as_ref());
        contest.map(|contest| contest.pause())
    }

    /// Renews the term stored at `revision`. Returns the new revision, or `None` if another instance leads.
    async fn renew(
        self,
        facts: Facts<Holder>,
        revision: u64,
        holder: Holder,
    ) -> Result<Option<u64>, BusError> {
        let renewed = facts.swap(&self.key, &holder, revision).await?;
        if renewed.is_some() {
            return Ok(renewed);
        }
        // An earlier renewal may have been stored although its answer was lost.
        let current = facts.look(&self.key).await?.and_then(Result::ok);
        let ours = current.filter(|f| f.value.as_ref().is_some_and(|h| h.instance == self.instance));
        Ok(ours.map(|fact| fact.revision))
    }
}

impl Term {
    /// Renews the term for as long as possible. Returns when and why it is lost.
    ///
    /// Cancel safe: called again, it continues the renewal in progress.
    pub async fn hold(&mut self) -> Loss {
        loop {
            let renewal = Holder {
                instance: self.candidate.instance.clone(),
                renewal: self.renewal + 1,
                began_at: self.began_at,
            };
            let renewed = tokio::select! {
                renewed = renewed(
                    &mut self.renewing,
                    self.renew_at,
                    &self.candidate,
                    &self.facts,
                    (self.revision, renewal),
                ) => renewed,
                question = self.presence.next() => match question {
                    Ok(_) => continue,
                    // The connection is closed for good, so this process is ending.
                    Err(_) => return std::future::pending().await,
                },
            };
            self.renewing = None;
            let now = Instant::now();
            self.renew_at = now + RENEW_EVERY;
            return match renewed {
                Ok(Some(revision)) => {
                    self.revision = revision;
                    self.renewal += 1;
                    self.renewed_at = now;
                    if self.renewal.is_multiple_of(REPORT_EVERY) {
                        self.candidate.contest();
                    }
                    continue;
                }
                // The stream of facts may be electing its leader. If another candidate has taken the role,
                // the next answer shows it. Until then both do the same work.
                Err(_) if now.duration_since(self.renewed_at) < UNANSWERED_MAX => continue,
                Ok(None) => self.candidate.lost(Loss::Taken),
                Err(error) => self.candidate.lost(Loss::Unanswered(error.to_string())),
            };
        }
    }

    /// Returns how many requests of candidates wait to be read. There are none while the term is held.
    pub fn unread(&mut self) -> usize {
        std::iter::from_fn(|| self.presence.next().now_or_never()).count()
    }

    /// Resigns the role, so a standby need not wait for the end of the term. Resigning swaps the fact instead
    /// of deleting it, so a leader that has already lost its term leaves its successor's fact alone.
    pub async fn resign(self) {
        let nobody = Holder {
            instance: String::new(),
            renewal: self.renewal,
            began_at: None,
        };
        let key = &self.candidate.key;
        if let Err(error) = self.facts.swap(key, &nobody, self.revision).await {
            tracing::debug!(%error, "cannot resign, the role is free when its term ends");
        }
    }
}

/// Waits until the renewal is due, renews, and returns the outcome.
async fn renewed(
    renewing: &mut Option<BoxFuture<'static, Result<Option<u64>, BusError>>>,
    renew_at: Instant,
    candidate: &Leadership,
    facts: &Facts<Holder>,
    (revision, renewal): (u64, Holder),
) -> Result<Option<u64>, BusError> {
    tokio::time::sleep_until(renew_at).await;
    let begin = || {
        let renewal = candidate.clone().renew(facts.clone(), revision, renewal);
        let in_time = tokio::time::timeout(RENEW_WITHIN, renewal);
        let late = BusError::unavailable(candidate.key.clone(), "the broker did not answer the renewal");
        in_time.map(|renewed| renewed.unwrap_or(Err(late))).boxed()
    };
    renewing.get_or_insert_with(begin).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, NatsConfig};
    use push0_harness::NatsServer;

    /// The losses are forgotten by hand: in truth that takes a minute.
    #[tokio::test]
    async fn a_standby_reports_the_end_of_its_contest() {
        let server = NatsServer::start().await;
        let config = NatsConfig {
            url: server.url(),
            ..NatsConfig::default()
        };
        let bus = Bus::connect(&config, "test").await.expect("a valid URL");
        bus.provision(&Limits::default()).await.expect("provisioned");
        let (says, mut said) = tokio::sync::watch::channel(None);
        let slow = Leadership::candidate(&bus, "test").watched(
            || (),
            move |contest| drop(says.send(contest.map(ToString::to_string))),
        );
        let other = Leadership::candidate(&bus, "test");
        let mut term = other.win().await.expect("the role is free");
        for _ in 0..3 {
            slow.lost(Loss::Taken);
        }
        assert!(said.borrow().is_some(), "three losses are a contest");
        let (sees, mut seen) = tokio::sync::watch::channel(false);
        let ends = async {
            seen.wait_for(|seen| *seen).await.expect("a candidate");
            *slow.losses() = Losses::default();
            said.wait_for(Option::is_none).await.is_ok()
        };
        let is_well = tokio::select! {
            loss = term.hold() => Err(loss),
            won = slow.win_reporting(|| { sees.send_replace(true); }) => Ok(won.is_err()),
            is_well = ends => Ok(is_well),
        };
        assert_eq!(is_well, Ok(true));
    }
}
