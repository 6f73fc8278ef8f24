//! The book: every key of a deployment, and its purpose.

use crate::name::NAME_TAIL;
use nkeys::KeyPair;
use push0_domain::{ProverId, ZkvmId, message::Role};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The most characters of a zkVM's name where replicas enrol: the name of a replica must fit an id.
const FLEET_ZKVM_MAX: usize = push0_domain::id::ID_LEN_MAX - NAME_TAIL - 1;

/// A user of the account `PUSH0`, or the enroller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// The ingester, which publishes blocks.
    Ingester,
    /// The dispatcher, which releases tasks.
    Dispatcher,
    /// The collector, which stores records.
    Collector,
    /// The watchdog, which ends attempts of dead provers.
    Watchdog,
    /// The creator of streams and pipelines.
    Provision,
    /// The operator's command.
    Operator,
    /// The gateway, which shows a deployment to people.
    Gateway,
    /// The enroller, which answers for replicas that sign in.
    Enroller,
}

impl Control {
    /// Every control user, in the order of declaration.
    pub const ALL: [Self; 8] = [
        Self::Ingester,
        Self::Dispatcher,
        Self::Collector,
        Self::Watchdog,
        Self::Provision,
        Self::Operator,
        Self::Gateway,
        Self::Enroller,
    ];

    /// Returns the user's name, which is also the name of its seed file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingester => "ingester",
            Self::Dispatcher => "dispatcher",
            Self::Collector => "collector",
            Self::Watchdog => "watchdog",
            Self::Provision => "provision",
            Self::Operator => "operator",
            Self::Gateway => "gateway",
            Self::Enroller => "enroller",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|user| user.as_str() == name)
    }
}

/// The name under which the book and the seed files keep the key that signs the enroller's answers.
pub(crate) const ISSUER: &str = "issuer";

/// A prover, a verifier, or a fleet of one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Whether it proves or verifies.
    pub role: Role,
    /// The zkVM that it serves.
    pub zkvm: ZkvmId,
    /// The public key: of the process itself, or of the credential by which the replicas of a fleet enrol.
    pub key: String,
    /// Whether any number of replicas enrol by this key, each under a name of its own.
    pub fleet: bool,
}

/// Every key of a deployment. Holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Book {
    /// The public key that signs the enroller's answers to the broker.
    pub issuer: String,
    /// Public keys of the control users.
    pub control: BTreeMap<Control, String>,
    /// Provers, verifiers and fleets, by name.
    pub members: BTreeMap<ProverId, Member>,
    /// Names of replicas that may not sign in any more, by any enrolment.
    pub revoked: BTreeSet<ProverId>,
}

/// A change that the book refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// The name has a key already.
    #[error(
        "`{0}` has a key already: `push0 auth rotate DIR {0}` replaces it, `push0 auth revoke DIR {0}` removes it"
    )]
    Taken(String),
    /// No key has the name.
    #[error("there is no `{0}`: `push0 auth show DIR` lists every name")]
    Unknown(String),
    /// The user is needed by every deployment.
    #[error("`{0}` is a user that every deployment needs: `push0 auth rotate DIR {0}` replaces its key")]
    Needed(String),
    /// The zkVM's name is too long for the names of replicas.
    #[error(
        "the zkVM name `{0}` is too long for a fleet: names of replicas need at most {FLEET_ZKVM_MAX} characters of it"
    )]
    TooLong(ZkvmId),
    /// The text is no name.
    #[error(transparent)]
    Name(#[from] push0_domain::id::InvalidId),
}

impl Book {
    /// Returns the names of all keys that a deployment needs and this book lacks.
    pub fn missing(&self) -> Vec<&'static str> {
        let users = Control::ALL
            .into_iter()
            .filter(|user| !self.control.contains_key(user));
        let issuer = self.issuer.is_empty().then_some(ISSUER);
        users.map(Control::as_str).chain(issuer).collect()
    }

    /// Returns the names of all keys: those of services, of the issuer, and of members.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let issuer = (!self.issuer.is_empty()).then_some(ISSUER);
        let members = self.members.keys().map(ProverId::as_str);
        self.control
            .keys()
            .map(|user| user.as_str())
            .chain(issuer)
            .chain(members)
    }

    /// Adds a prover, a verifier or a fleet.
    pub fn add(&mut self, name: ProverId, member: Member) -> Result<(), BookError> {
        let text = name.as_str();
        let taken = self.members.contains_key(&name) || Control::named(text).is_some() || text == ISSUER;
        if taken {
            return Err(BookError::Taken(text.to_owned()));
        }
        if member.fleet && member.zkvm.as_str().len() > FLEET_ZKVM_MAX {
            return Err(BookError::TooLong(member.zkvm));
        }
        self.members.insert(name, member);
        Ok(())
    }

    /// Returns whether the key of this name is that of an account, and not of a user.
    pub fn is_issuer(name: &str) -> bool {
        name == ISSUER
    }

    /// Replaces the key of a name, a control user's included.
    pub fn set_key(&mut self, name: &str, key: String) -> Result<(), BookError> {
        if name == ISSUER {
            self.issuer = key;
        } else if let Some(user) = Control::named(name) {
            self.control.insert(user, key);
        } else {
            let member = ProverId::new(name).ok().and_then(|id| self.members.get_mut(&id));
            member.ok_or_else(|| BookError::Unknown(name.to_owned()))?.key = key;
        }
        Ok(())
    }

    /// Removes a prover, verifier or fleet. Any other name counts as that of a replica, which may not sign in
    /// any more. Returns whether the book had a key of this name.
    pub fn revoke(&mut self, name: &str) -> Result<bool, BookError> {
        if Control::named(name).is_some() || name == ISSUER {
            return Err(BookError::Needed(name.to_owned()));
        }
        let id = ProverId::new(name)?;
        if self.members.remove(&id).is_some() {
            return Ok(true);
        }
        let is_replica = self.members.values().any(|member| {
            let tail = name
                .strip_prefix(member.zkvm.as_str())
                .and_then(|rest| rest.strip_prefix('-'));
            member.fleet && tail.is_some_and(|tail| tail.len() == NAME_TAIL)
        });
        if !is_replica {
            return Err(BookError::Unknown(name.to_owned()));
        }
        self.revoked.insert(id);
        Ok(false)
    }

    /// Returns whether brokers take over a new key of this name only when they restart.
    pub fn needs_restart(name: &str) -> bool {
        name == ISSUER || Control::named(name) == Some(Control::Enroller)
    }

    /// Draws a key. Returns the seed and the public key.
    pub fn draw(is_account: bool) -> (String, String) {
        let drawn = if is_account {
            KeyPair::new_account()
        } else {
            KeyPair::new_user()
        };
        // A pair that was drawn, and not read from a public key, has its seed.
        (drawn.seed().unwrap_or_default(), drawn.public_key())
    }
}
