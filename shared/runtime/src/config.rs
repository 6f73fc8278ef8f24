//! Configuration, merged from the defaults of the types, a TOML file and environment variables; later
//! sources override earlier ones.
//!
//! The environment variable `PUSH0_SECTION__KEY` sets the key `section.key`: two underscores descend into
//! a section, a single one belongs to the name. All services of a deployment share one namespace. A
//! variable for a section unknown to this service is refused like any other unknown key: a setting
//! without effect is worse than a service that does not start.
//!
//! An environment value is read as the type of its key: `5` is a number for a numeric key and text for a
//! text key, `a,b` is a list for a list key, and the empty text is "none" for an optional key. Types that
//! must see the value first (`#[serde(untagged)]`, `#[serde(flatten)]`) get text.

mod environment;
mod error;
mod invalid;
mod refusal;
mod sections;
mod tree;

use std::ffi::OsString;
use std::path::Path;

use ::config::{Config, File, FileFormat, Value, ValueKind};
use serde::de::DeserializeOwned;

use environment::Environment;
pub use error::ConfigError;
pub use invalid::Invalid;
use refusal::Refusal;
pub use sections::{
    DEFAULT_SHUTDOWN_GRACE, HasRuntimeConfig, HttpConfig, LogFormat, OtlpProtocol, TelemetryConfig,
};
use tree::Node;

/// Durations such as `250ms`, `5s` and `10m`, for `#[serde(with = "push0_runtime::config::duration")]` on
/// `Duration` and on `Option<Duration>` (the latter with `#[serde(default)]`).
pub mod duration {
    pub use humantime_serde::{deserialize, serialize};
}

/// Loads a configuration from `file`, if given, and from the environment of this process.
///
/// # Errors
/// The file cannot be read or is not TOML, a key is unknown or missing, or a value does not fit.
pub fn load<T: DeserializeOwned>(file: Option<&Path>) -> Result<T, ConfigError> {
    load_from(file, std::env::vars_os(), |_| Ok(()))
}

/// Like [`load`], but with the variables `vars` and followed by `check`. A refusal by `check` is reported
/// like a refusal by a type, with the value found and its origin.
///
/// # Errors
/// As [`load`], and the refusals by `check`.
pub fn load_from<T: DeserializeOwned>(
    file: Option<&Path>,
    vars: impl IntoIterator<Item = (OsString, OsString)>,
    check: impl FnOnce(&T) -> Result<(), Invalid>,
) -> Result<T, ConfigError> {
    let mut builder = Config::builder();
    if let Some(path) = file {
        // The file is read here, because the crate would try other extensions when the file is missing.
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            file: path.to_owned(),
            source,
        })?;
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
    }
    let merged = builder
        .add_source(Environment::collect(vars)?)
        .build()
        .map_err(|error| error::malformed(file, &error))?;
    let root = merged.cache;
    let config = T::deserialize(Node::root(&root)).map_err(|r| locate(&root, file, r))?;
    check(&config).map_err(|invalid| match &invalid.found {
        Some(found) => ConfigError::in_variable(&invalid.key, found, &invalid.expected),
        None => locate(&root, file, Refusal::from(invalid)),
    })?;
    Ok(config)
}

/// Completes a refusal with the value found and its origin, both taken from the merged values.
fn locate(root: &Value, file: Option<&Path>, refusal: Refusal) -> ConfigError {
    let mut key = refusal.path.unwrap_or_default();
    // A list from a variable is one text, so its items have no value of their own.
    let whole = |list: &&Value| matches!(list.kind, ValueKind::String(_));
    let mut value = at(root, &key).or_else(|| at(root, key.split('[').next()?).filter(whole));
    if refusal.problem.is_unknown() {
        // For an unknown section, the error names its first setting, which leads to the line or variable.
        while let Some((name, inner)) = value.and_then(first_entry) {
            key = format!("{key}.{name}");
            value = Some(inner);
        }
    }
    let origin = match (value.and_then(Value::origin), value, file) {
        (Some(variable), _, _) => format!("environment variable {variable}"),
        (None, Some(_), Some(file)) => format!("file {}", file.display()),
        (None, None, Some(file)) => {
            format!(
                "neither in file {} nor in {}",
                file.display(),
                environment::variable(&key)
            )
        }
        _ => format!("set it in a file or in {}", environment::variable(&key)),
    };
    let found = value.map(|value| error::shown(&key, value));
    let raw = value.and_then(|value| value.clone().into_string().ok());
    ConfigError::refused(key, refusal.problem, found, raw, origin)
}

fn first_entry(value: &Value) -> Option<(&String, &Value)> {
    match &value.kind {
        ValueKind::Table(table) => table.iter().min_by_key(|(name, _)| *name),
        _ => None,
    }
}

/// Returns the value at a path such as `a.b[2].c`; `None` if there is none.
fn at<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    path.split(['.', '['])
        .filter(|s| !s.is_empty())
        .try_fold(root, |value, segment| match &value.kind {
            ValueKind::Table(table) => table.get(segment),
            ValueKind::Array(items) => items.get(segment.trim_end_matches(']').parse::<usize>().ok()?),
            _ => None,
        })
}

#[cfg(test)]
mod tests;
