//! What is wrong with a configuration, in one line that an operator can act on.

use std::path::{Path, PathBuf};

use ::config::{ConfigError as SourceError, Value, ValueKind};

use super::refusal::Problem;

/// Keys whose values are never printed: any key whose path contains one of these words.
const SECRET: [&str; 9] = [
    "secret",
    "token",
    "password",
    "passwd",
    "seed",
    "cred",
    "nkey",
    "api_key",
    "private_key",
];

/// A configuration that the service does not start with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {} cannot be read", file.display())]
    Unreadable {
        /// The file as it was given.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {}: {reason}", file.display())]
    Malformed {
        /// The file as it was given.
        file: PathBuf,
        /// Line, column and what the parser expected; never the line itself, which may be a secret.
        reason: String,
    },
    /// One key is unknown or missing, or its value does not fit.
    #[error("{key}: {reason} ({origin})")]
    Refused {
        /// Full path of the key, such as `telemetry.otlp_protocol`.
        key: String,
        /// The value found (`***` for a secret) and what was expected instead.
        reason: String,
        /// The file or the environment variable that set it, or could have.
        origin: String,
    },
}

/// What a service's own check refuses, see [`HasRuntimeConfig::validate`](super::HasRuntimeConfig).
/// The value found and its origin are added when it is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Full path of the key, such as `dispatcher.max_in_flight`.
    pub key: String,
    /// What would be accepted, such as `a number from 1 to 100`.
    pub expected: String,
}

impl Invalid {
    /// Refuses the value of `key`, as something else is `expected`.
    pub fn new(key: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            expected: expected.into(),
        }
    }
}

impl ConfigError {
    pub(super) fn refused(
        key: String,
        problem: Problem,
        found: Option<String>,
        raw: Option<String>,
        origin: String,
    ) -> Self {
        let value = found
            .as_deref()
            .map_or_else(|| "the default".to_owned(), |f| format!("found {f}"));
        let reason = match problem {
            Problem::Unknown { known: [] } => "unknown key, none is expected here".into(),
            Problem::Unknown { known } => {
                format!("unknown key, this service has here: {}", known.join(", "))
            }
            Problem::Missing => "missing, and it has no default".to_owned(),
            Problem::Mismatch { expected } => format!("{value}, expected {expected}"),
            // Another crate's words, which may repeat the value.
            Problem::Other { .. } if is_secret(&key) => format!("{value}, expected a valid value"),
            Problem::Other { message } => {
                let message = match (raw, found) {
                    (Some(raw), Some(_)) if hide_userinfo(&raw) != raw => {
                        message.replace(&raw, &hide_userinfo(&raw))
                    }
                    _ => message,
                };
                format!("{value}: {message}")
            }
        };
        Self::Refused { key, reason, origin }
    }

    pub(super) fn not_text(key: String, variable: &str) -> Self {
        Self::Refused {
            key,
            reason: "the value is not valid UTF-8".to_owned(),
            origin: format!("environment variable {variable}"),
        }
    }
}

/// The parser's message without the excerpt of the file, whose lines hold a bar.
pub(super) fn malformed(file: Option<&Path>, error: &SourceError) -> ConfigError {
    let text = match error {
        SourceError::FileParse { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    let kept = text
        .lines()
        .filter(|line| !line.contains('|') && !line.trim().is_empty());
    ConfigError::Malformed {
        file: file.map(Path::to_owned).unwrap_or_default(),
        reason: kept.collect::<Vec<_>>().join(": "),
    }
}

/// The value as a message may show it.
pub(super) fn shown(key: &str, value: &Value) -> String {
    match &value.kind {
        ValueKind::Table(_) => "a section".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        _ if is_secret(key) => "***".to_owned(),
        ValueKind::String(text) => format!("{:?}", hide_userinfo(text)),
        ValueKind::Nil => "nothing".to_owned(),
        _ => value.to_string(),
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    SECRET.iter().any(|word| key.contains(word))
}

/// A URL may carry a user's name and password before its host.
fn hide_userinfo(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            format!("{}***{}", &text[..scheme + 3], &text[at..])
        }
        _ => text.to_owned(),
    }
}
