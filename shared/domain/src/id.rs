//! Ids: short names, always valid as one token of a subject.
//!
//! An id is checked once, where it enters the system (a file, a command line, a message). Code holding an
//! id need not check it again.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// Maximum length of an id, in bytes. A subject of nine such tokens stays below the broker's limit.
pub const ID_LEN_MAX: usize = 48;

/// Error for a text that is not a valid id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a {kind}: expected 1 to {ID_LEN_MAX} characters of a-z, 0-9, `-` and `_`, starting with a letter or digit"
)]
pub struct InvalidId {
    /// The expected kind of id, for example `pipeline name`.
    pub kind: &'static str,
    /// The offending text, cut to [`ID_LEN_MAX`] + 16 characters.
    pub text: String,
}

fn check(kind: &'static str, text: &str) -> Result<(), InvalidId> {
    let first_ok = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest_ok = text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if first_ok && rest_ok && text.len() <= ID_LEN_MAX {
        return Ok(());
    }
    Err(InvalidId {
        kind,
        text: text.chars().take(ID_LEN_MAX + 16).collect(),
    })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        // Ids are cloned with every message and map key; with a shared string, a clone only
        // increments a counter.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a text and turns it into an id.
            pub fn new(text: &str) -> Result<Self, InvalidId> {
                check($kind, text)?;
                Ok(Self(text.into()))
            }

            /// Returns the id's text, which is valid as one subject token.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&text).map_err(de::Error::custom)
            }
        }
    };
}

id!(
    /// Name of a pipeline: one chain, one policy, one ordered output.
    PipelineId, "pipeline name"
);
id!(
    /// Name of a zkVM (proof system), for example `sp1`, `zisk`, `miden`.
    ZkvmId, "zkVM name"
);
id!(
    /// Name of one prover or verifier (a process or a cluster), unique in a deployment.
    ProverId, "prover id"
);
id!(
    /// Name of one of the proofs that a pipeline wants of every block, for example `sp1-core`.
    ProofType, "proof type"
);
id!(
    /// Name of a stage: one step of a proof.
    StageName, "stage name"
);

/// A prover or verifier, as subjects name it. Provers of two zkVMs may have one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Participant {
    /// The zkVM that it serves.
    pub zkvm: ZkvmId,
    /// Its name among the provers and verifiers of the zkVM.
    pub name: ProverId,
}

impl fmt::Display for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.zkvm, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_accepted_id_is_one_subject_token(text in ".{0,60}") {
            if let Ok(id) = PipelineId::new(&text) {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert!(!text.is_empty() && !text.contains(['.', '*', '>', ' ', '\t', '\n']));
            }
        }
    }

    #[test]
    fn a_bad_id_says_what_was_expected() {
        let error = ZkvmId::new("SP 1").unwrap_err().to_string();
        assert!(error.contains("`SP 1` is not a zkVM name"), "{error}");
        assert!(ZkvmId::new("").is_err());
        assert!(ZkvmId::new("-x").is_err());
        assert!(ZkvmId::new(&"x".repeat(ID_LEN_MAX + 1)).is_err());
        assert!(serde_json::from_str::<ZkvmId>("\"a.b\"").is_err());
    }
}
