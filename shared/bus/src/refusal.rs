//! What the broker does not allow this process: said at once, instead of after a timeout.
//!
//! The broker drops a message that its user may not send, and says so on the connection only: whoever
//! waits for an answer would wait for nothing. So each refusal is reported, and ends what may be waiting.

use crate::{Bus, BusError, NatsConfig};
use push0_domain::subject;
use std::{fmt, sync::Arc};
use tokio::sync::broadcast;

/// How many refusals a waiting session may be behind: it ends with the first.
const KEPT: usize = 16;

/// A message or subscription that the broker refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was refused: `publish to` or `subscribe to`.
    action: &'static str,
    /// The subject.
    pub subject: String,
    /// The broker's user that this process is.
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
            "the broker does not let {user} {action} `{subject}`: widen the permissions of that user \
             (deploy/nats/nats-auth.conf has what each service needs)"
        )
    }
}

impl Refusal {
    /// Reads the broker's words on a violation; none if they are about something else.
    fn parse(words: &str, user: &str) -> Option<Self> {
        let action = if words.contains("Permissions Violation for Publish") {
            "publish to"
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

    /// Whether something waits for what was refused. Nobody waits for an event.
    pub fn is_waited_for(&self) -> bool {
        subject::Kind::of(&self.subject) != Some(subject::Kind::Event)
    }
}

/// Where refusals are reported: with each one, and with none whenever the connection is made anew, since
/// permissions may have changed.
pub(crate) type Report = Arc<dyn Fn(Option<&Refusal>) + Send + Sync>;

/// The refusals of one connection, as they come.
#[derive(Clone)]
pub(crate) struct Refusals {
    user: Arc<str>,
    report: Report,
    passing: broadcast::Sender<Arc<Refusal>>,
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

    /// Takes the broker's words. Returns whether they are about permissions.
    pub(crate) fn note(&self, words: &str) -> bool {
        let Some(refusal) = Refusal::parse(words, &self.user) else {
            return false;
        };
        tracing::error!(subject = refusal.subject, user = refusal.user, "{refusal}");
        (self.report)(Some(&refusal));
        // Without a receiver nothing waits.
        let _ = self.passing.send(Arc::new(refusal));
        true
    }

    /// The connection stands anew, perhaps with other permissions.
    pub(crate) fn forget(&self) {
        (self.report)(None);
    }
}

impl Bus {
    /// Does this work, and ends it when the broker refuses something on this connection that may be
    /// waited for.
    ///
    /// # Errors
    /// [`BusError::Forbidden`], or what the work ended with.
    pub async fn permitted<T>(&self, work: impl Future<Output = Result<T, BusError>>) -> Result<T, BusError> {
        tokio::select! {
            biased;
            refusal = self.refused() => Err(BusError::Forbidden(refusal)),
            done = work => done,
        }
    }

    /// Waits until the broker refuses something that may be waited for.
    pub async fn refused(&self) -> Arc<Refusal> {
        let mut passing = self.refusals.passing.subscribe();
        loop {
            match passing.recv().await {
                Ok(refusal) if refusal.is_waited_for() => return refusal,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                // The sender lives in `self`: the channel cannot close.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// How an operator knows the user that a configuration signs in as: never by a secret.
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
