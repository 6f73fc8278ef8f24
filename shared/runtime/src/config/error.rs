//! Errors of a configuration, each as one line for an operator to act on.

use std::path::{Path, PathBuf};

use ::config::{ConfigError as SourceError, Value, ValueKind};

use super::refusal::Problem;

/// Words marking secrets: the value of a key whose path contains one of these words is never printed.
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

/// Reasons for refusing a configuration; the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {} cannot be read", file.display())]
    Unreadable {
        /// Path of the file, as given.
        file: PathBuf,
        /// The error from reading the file.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {}: {reason}", file.display())]
    Malformed {
        /// Path of the file, as given.
        file: PathBuf,
        /// Line, column and the parser's expectation; never the line itself, which may hold a secret.
        reason: String,
    },
    /// One key is unknown or missing, or its value does not fit.
    #[error("{key}: {reason} ({origin})")]
    Refused {
        /// Full path of the key, such as `telemetry.otlp_protocol`.
        key: String,
        /// The value found (`***` for a secret) and the values expected instead.
        reason: String,
        /// The file or environment variable in which the key was set, or could have been set.
        origin: String,
    },
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
                format!("unknown key, expected one of: {}", known.join(", "))
            }
            Problem::Missing => "missing, and it has no default".to_owned(),
            Problem::Mismatch { expected } => format!("{value}, expected {expected}"),
            // The message comes from another crate and may repeat the value.
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

    pub(super) fn in_variable(variable: &str, found: &str, expected: &str) -> Self {
        Self::Refused {
            key: variable.to_owned(),
            reason: format!("found {:?}, expected {expected}", hide_userinfo(found)),
            origin: "environment variable".to_owned(),
        }
    }

    pub(super) fn not_text(key: String, variable: &str) -> Self {
        Self::Refused {
            key,
            reason: "the value is not valid UTF-8".to_owned(),
            origin: format!("environment variable {variable}"),
        }
    }
}

/// Removes the excerpt of the file from the parser's message. Its lines contain a vertical bar.
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

/// Formats the value for a message, without secrets.
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

/// Hides the user and the password in front of the host of a URL.
fn hide_userinfo(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            format!("{}***{}", &text[..scheme + 3], &text[at..])
        }
        _ => text.to_owned(),
    }
}
