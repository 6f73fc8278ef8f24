//! Outages of the broker: the log lines of a process about them, and its quiet times.

use crate::{NatsConfig, tls};
use async_nats::ServerAddr;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, time::timeout};

/// How often an outage is logged again. The client tries twice a second.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Time limit for one address. Meanwhile no other event of the connection is handled.
const TRY_MAX: Duration = Duration::from_millis(500);

/// The client's words for a sign-in that the broker refuses.
const REFUSAL: &str = "authorization violation";

/// The end of the reason for which a broker cannot be reached.
const TRYING: &str = "; trying on";

/// Called with the reason while the broker cannot be reached, and with `None` when it is back.
pub(crate) type Report = dyn Fn(Option<&String>) + Send + Sync;

/// The outage of one connection, if there is one.
pub(crate) struct Outage {
    /// The broker's address, without secrets.
    url: String,
    addresses: Vec<ServerAddr>,
    config: NatsConfig,
    said_at: Mutex<Option<Instant>>,
    refused: Refused,
    report: Box<Report>,
}

/// Whether the broker refused the last sign-in of a connection.
#[derive(Clone, Default)]
pub(crate) struct Refused(Arc<AtomicBool>);

impl Refused {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes the outcome of an attempt to connect. Returns whether it is the first refusal in a row.
    fn note(&self, is_refused: bool) -> bool {
        !self.0.swap(is_refused, Ordering::Relaxed) && is_refused
    }
}

impl Outage {
    pub(crate) fn new(
        config: &NatsConfig,
        url: String,
        addresses: Vec<ServerAddr>,
        refused: Refused,
        report: Box<Report>,
    ) -> Self {
        Self {
            config: config.clone(),
            url,
            addresses,
            said_at: Mutex::default(),
            refused,
            report,
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Handles the loss of a connection that was up.
    pub(crate) fn began(&self, now: Instant) {
        // The loss itself is logged, so the first failure to reconnect is no news.
        is_due(&mut self.said_at(), now);
        let reason = format!("lost the broker {}, reconnecting", self.url);
        tracing::warn!("{reason}");
        (self.report)(Some(&reason));
    }

    /// Handles a failed attempt to connect. The first refusal of the sign-in is news, although the loss was logged a moment
    /// ago: an operator has to act.
    pub(crate) async fn goes_on(&self, error: &str, now: Instant) {
        if self.refused.note(error.contains(REFUSAL)) {
            *self.said_at() = None;
        }
        if is_due(&mut self.said_at(), now) {
            let error = self.reason(error).await;
            let reason = format!("cannot reach the broker {}: {error}{TRYING}", self.url);
            tracing::warn!("{reason}");
            (self.report)(Some(&reason));
        }
    }

    /// Returns the reason of a failed attempt. The client's own text says no more than `IO error`, so the addresses
    /// are tried once more.
    async fn reason(&self, error: &str) -> String {
        let mut reason = error.to_owned();
        for address in &self.addresses {
            let host = address.host().trim_matches(['[', ']']);
            let connected = TcpStream::connect((host, address.port()));
            reason = match timeout(TRY_MAX, connected).await {
                // The address answers, so the client met another obstacle, such as its key or TLS.
                Ok(Ok(_)) => return self.handshake(address).await.unwrap_or_else(|| error.to_owned()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
        }
        reason
    }

    /// Returns the reason why the handshake with a broker fails; `None` if it does not.
    async fn handshake(&self, address: &ServerAddr) -> Option<String> {
        let config = self.config.clone();
        let requires_tls = config.tls_ca.is_some() || address.tls_required();
        let (host, port) = (address.host().trim_matches(['[', ']']).to_owned(), address.port());
        let trial = move || tls::trial(&config, requires_tls, &host, port);
        tokio::task::spawn_blocking(trial).await.ok().flatten()
    }

    /// Handles a new connection.
    pub(crate) fn ended(&self) {
        self.refused.note(false);
        *self.said_at() = None;
        (self.report)(None);
    }

    fn said_at(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.said_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the words of the broker or the system in a reason that the report of an outage was called with.
pub fn cause_of_outage(reason: &str) -> &str {
    let cause = reason.split_once(": ").map_or(reason, |(_, cause)| cause);
    cause.strip_suffix(TRYING).unwrap_or(cause)
}

/// Returns whether the outage is to be logged now, and notes that it is.
fn is_due(said_at: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = said_at.is_none_or(|at| now.duration_since(at) >= SAY_EVERY);
    if is_due {
        *said_at = Some(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_at_once_and_then_once_a_minute() {
        let (began, mut said_at) = (Instant::now(), None);
        let mut due = |seconds| is_due(&mut said_at, began + Duration::from_secs(seconds));
        assert_eq!(
            [0, 1, 59, 60, 61, 120].map(&mut due),
            [true, false, false, true, false, true]
        );
    }

    #[tokio::test]
    async fn the_first_refusal_of_the_sign_in_is_told_at_once() {
        let (says, told) = std::sync::mpsc::channel();
        let report = move |reason: Option<&String>| drop(says.send(reason.cloned()));
        let config = NatsConfig::default();
        let outage = Outage::new(
            &config,
            "b".into(),
            Vec::new(),
            Refused::default(),
            Box::new(report),
        );
        let now = Instant::now();
        outage.began(now);
        outage.goes_on("IO error", now).await;
        outage.goes_on("authorization violation: nats", now).await;
        outage.goes_on("authorization violation: nats", now).await;
        let reasons: Vec<String> = told.try_iter().flatten().collect();
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert!(reasons[1].contains("authorization violation"), "{reasons:?}");
    }
}
