//! The name of this process: taken at the start, unless a living process has it, and kept while connected.
//!
//! Processes of one name speak to each other on the subject of their name. A starting process asks, and a process
//! that has the name answers. Each process also listens on a subject of its own: the broker ends the subscription
//! with the connection, so the watchdog learns that a killed process is gone.

use crate::identity::Identity;
use push0_bus::{Bus, BusError, Message, Signal, Signals};
use push0_domain::{
    Participant, ProverId,
    message::{Origin, Presence},
    subject,
    trace::TraceContext,
};
use std::time::Duration;
use tokio::time::Instant;

/// How long the broker may take to say that the subject of the name has no listener.
const ASK_MAX: Duration = Duration::from_millis(200);
/// How long a starting process listens for another one that starts at the same moment.
const RACE: Duration = Duration::from_millis(150);
/// How long a process that has the name may take to answer. A connection without a process, as after a power
/// cut, looks the same to the broker for minutes, and must not hold up a restart.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// The error of a process whose name is taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name `{prover}` is taken by {taken_by}, so {refused} does not start: stop the other process, or give this one \
     another name (PUSH0_PROVER__ID)"
)]
pub(crate) struct NameTaken {
    prover: ProverId,
    taken_by: Origin,
    refused: Origin,
}

/// Returns where this process runs.
pub(crate) fn origin() -> Origin {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|host| host.into_string().ok());
    Origin {
        host: host.unwrap_or_else(|| "an unnamed host".into()),
        pid: std::process::id(),
    }
}

/// The reaction to the word of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    /// Nothing: it is this process's own word, or that of a process with another role.
    Ignore,
    /// Say that this process has the name.
    Answer,
    /// Leave the name to the other process.
    Yield,
    /// Two processes have the name already. The watchdog tells operators.
    Note,
}

fn react(own: &Presence, other: &Presence) -> Reaction {
    if other.incarnation == own.incarnation || other.role != own.role {
        return Reaction::Ignore;
    }
    match (own.is_starting, other.is_starting) {
        (true, false) => Reaction::Yield,
        // Of two that start at the same moment, the one with the lower number goes on.
        (true, true) if other.incarnation < own.incarnation => Reaction::Yield,
        (_, true) => Reaction::Answer,
        (false, false) => Reaction::Note,
    }
}

/// The name of this process, and its ear for others of the name.
pub(crate) struct Name {
    bus: Bus,
    participant: Participant,
    own: Presence,
    others: Signals,
    has_noted: bool,
}

impl Name {
    /// Takes the name, unless a living process has it.
    pub(crate) async fn take(bus: &Bus, who: &Identity) -> Result<Result<Self, NameTaken>, BusError> {
        let participant = who.participant();
        // Asks before listening itself: only then can the subject be without a listener.
        let is_free = bus
            .has_no_listener(subject::presence(&participant), ASK_MAX)
            .await;
        let subjects = [
            subject::presence(&participant),
            subject::presence_of(&participant, who.incarnation),
        ];
        let mut name = Self {
            bus: bus.clone(),
            participant,
            own: Presence {
                role: who.role,
                incarnation: who.incarnation,
                origin: who.origin.clone(),
                is_starting: true,
            },
            others: bus.listen(subjects).await?,
            has_noted: false,
        };
        name.speak().await;
        let until = Instant::now() + if is_free { RACE } else { ANSWER_MAX };
        while let Ok(word) = tokio::time::timeout_at(until, name.next()).await {
            let Some((Reaction::Yield, other)) = name.heard(&word?).await else {
                continue;
            };
            return Ok(Err(NameTaken {
                prover: name.participant.name,
                taken_by: other.origin,
                refused: name.own.origin,
            }));
        }
        if !is_free {
            tracing::warn!(
                prover.id = %name.participant.name,
                "a process of this name is or was connected and does not answer, starting beside it"
            );
        }
        name.own.is_starting = false;
        Ok(Ok(name))
    }

    /// Returns the next word of a process of this name. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Signal, BusError> {
        self.others.next().await
    }

    /// Answers another process of this name, if it asks.
    pub(crate) async fn answer(&mut self, word: &Signal) {
        if let Some((Reaction::Note, other)) = self.heard(word).await
            && !std::mem::replace(&mut self.has_noted, true)
        {
            tracing::error!(
                prover.id = %self.participant.name,
                other = %other.origin,
                "another living process has the name of this one, give one of them another PUSH0_PROVER__ID"
            );
        }
    }

    async fn heard(&self, word: &Signal) -> Option<(Reaction, Presence)> {
        // The questions of the watchdog, and of others before they listen, are empty.
        let other = word.body::<Presence>().ok()?;
        let reaction = react(&self.own, &other);
        if reaction == Reaction::Answer {
            self.speak().await;
        }
        Some((reaction, other))
    }

    async fn speak(&self) {
        let message = Message::new(
            subject::presence(&self.participant),
            &self.own,
            &TraceContext::default(),
        );
        let sent = match message {
            Ok(message) => self.bus.signal(message).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = sent {
            tracing::debug!(error, "presence not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::message::Role;

    fn presence(incarnation: u64, is_starting: bool) -> Presence {
        Presence {
            role: Role::Prover,
            incarnation,
            origin: Origin {
                host: "gpu-1".into(),
                pid: 7,
            },
            is_starting,
        }
    }

    #[test]
    fn one_of_two_that_start_together_yields_and_the_other_does_not() {
        for (one, other) in [(1, 2), (2, 1), (0, u64::MAX)] {
            let (one, other) = (presence(one, true), presence(other, true));
            let yields = [react(&one, &other), react(&other, &one)].map(|r| r == Reaction::Yield);
            assert_ne!(yields[0], yields[1]);
        }
    }

    #[test]
    fn a_process_that_has_the_name_keeps_it_whatever_its_number() {
        for (has, starts) in [(1, 2), (2, 1)] {
            let (has, starts) = (presence(has, false), presence(starts, true));
            assert_eq!(react(&has, &starts), Reaction::Answer);
            assert_eq!(react(&starts, &has), Reaction::Yield);
        }
    }

    #[test]
    fn its_own_word_and_that_of_a_verifier_of_the_name_are_nothing_to_a_prover() {
        let own = presence(1, true);
        let verifier = Presence {
            role: Role::Verifier,
            ..presence(2, false)
        };
        assert_eq!(react(&own, &own), Reaction::Ignore);
        assert_eq!(react(&own, &verifier), Reaction::Ignore);
    }
}
