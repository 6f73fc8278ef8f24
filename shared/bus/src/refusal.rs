//! Permission errors of the broker, reported at once instead of after a timeout.
//!
//! The broker drops a message its user may not send and reports the violation only on the connection:
//! a request would wait in vain for its answer. So each refusal is reported, and ends the work that
//! may be waiting.

use crate::{NatsConfig, services::is_inbox};
use push0_domain::subject;
use std::{fmt, sync::Arc};
use tokio::sync::broadcast;

/// The action of sending a message.
const PUBLISH: &str = "publish to";
/// How many refusals a waiter may lag behind. A waiter ends at its first refusal, so few are enough.
const KEPT: usize = 16;

/// A message or subscription refused by the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The refused action: `publish to` or `subscribe to`.
    action: &'static str,
    /// The subject of the message or subscription.
    pub subject: String,
    /// The user of this process, as an operator knows it, without secrets.
    pub user: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            action,
            subject,
            user,
        } = self;
        write!(
            f,
            "the broker does not let {user} {action} `{subject}`: `push0 auth show DIR` lists the users, and `push0 auth \
             init DIR` writes the broker's configuration of this version"
        )
    }
}

impl Refusal {
    /// Parses an error text of the broker. `None` if the error is not about permissions.
    fn parse(words: &str, user: &str) -> Option<Self> {
        let action = if words.contains("Permissions Violation for Publish") {
            PUBLISH
        } else if words.contains("Permissions Violation for Subscription") {
            "subscribe to"
        } else {
            return None;
        };
        let subject = words.split('"').nth(1)?.to_owned();
        let user = user.to_owned();
        Some(Self {
            action,
            subject,
            user,
        })
    }

    /// Returns whether any work may wait for the refused action. No work waits for an event, or for services to be known.
    pub fn is_waited_for(&self) -> bool {
        let is_event = matches!(
            subject::Kind::of(&self.subject),
            Some(subject::Kind::Event | subject::Kind::Notice)
        );
        !is_event && !self.subject.starts_with("$SRV.") && !self.is_answer()
    }

    /// Returns whether an answer to a client was refused, which is nothing that this process needs: the client may not
    /// ask this process.
    fn is_answer(&self) -> bool {
        self.action == PUBLISH && is_inbox(&self.subject)
    }
}

/// The callback for refusals. Called with each refusal, and with `None` whenever a connection is made, since
/// permissions may have changed.
pub(crate) type Report = Arc<dyn Fn(Option<&Refusal>) + Send + Sync>;

/// The refusals on one connection.
#[derive(Clone)]
pub(crate) struct Refusals {
    user: Arc<str>,
    report: Report,
    pub(crate) passing: broadcast::Sender<Arc<Refusal>>,
}

impl Refusals {
    pub(crate) fn new(user: String, report: Report) -> Self {
        let (passing, _) = broadcast::channel(KEPT);
        let user = user.into();
        Self {
            user,
            report,
            passing,
        }
    }

    /// Reports a permission error and passes it to all waiters. Returns whether the error text
    /// is about permissions.
    pub(crate) fn note(&self, words: &str) -> bool {
        let Some(refusal) = Refusal::parse(words, &self.user) else {
            return false;
        };
        if refusal.is_answer() {
            tracing::debug!(subject = refusal.subject, "{refusal}");
            return true;
        }
        tracing::error!(subject = refusal.subject, user = refusal.user, "{refusal}");
        (self.report)(Some(&refusal));
        // Fails if there is no receiver: then no work waits.
        let _ = self.passing.send(Arc::new(refusal));
        true
    }

    /// Withdraws the reports when a connection is made, since permissions may have changed.
    pub(crate) fn forget(&self) {
        (self.report)(None);
    }
}

/// Returns a description of the configured user for operators, never with a secret.
pub(crate) fn user_of(config: &NatsConfig, nkey_seed: Option<&str>, url_user: Option<&str>) -> String {
    let key = nkey_seed.and_then(|seed| nkeys::KeyPair::from_seed(seed).ok());
    match (key, &config.credentials, url_user) {
        (Some(key), ..) => format!("the user with the public key {}", key.public_key()),
        (None, Some(path), _) => format!("the user of {}", path.display()),
        (None, None, Some(user)) => format!("the user `{user}`"),
        (None, None, None) => "a user without a name".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> Option<(&'static str, String)> {
        Refusal::parse(words, "x").map(|refusal| (refusal.action, refusal.subject))
    }

    #[test]
    fn the_words_of_the_broker_are_understood() {
        let publish = "Permissions Violation for Publish to \"$JS.API.STREAM.INFO.A\"";
        assert_eq!(
            parsed(publish),
            Some(("publish to", "$JS.API.STREAM.INFO.A".into()))
        );
        let subscribe = "'Permissions Violation for Subscription to \"a.>\" using queue \"q\"'";
        assert_eq!(parsed(subscribe), Some(("subscribe to", "a.>".into())));
        assert_eq!(parsed("maximum payload violation"), None);
    }

    #[test]
    fn nothing_waits_for_an_event() {
        let refusal = |subject: &str| Refusal {
            action: "publish to",
            subject: subject.into(),
            user: String::new(),
        };
        assert!(!refusal(&subject::event(None, "dead-letter")).is_waited_for());
        assert!(refusal(&subject::proof(&"demo".parse().unwrap(), 1)).is_waited_for());
        assert!(refusal("$JS.API.STREAM.INFO.X").is_waited_for());
    }
}
