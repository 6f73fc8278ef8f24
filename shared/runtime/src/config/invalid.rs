//! Refusal of a value by a check of the service, beyond its type.

/// A refusal by a service's own check, see [`HasRuntimeConfig::validate`](super::HasRuntimeConfig). The
/// report adds the value found and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Full path of the key, such as `dispatcher.max_in_flight`.
    pub key: String,
    /// The accepted values, such as `a number from 1 to 100`.
    pub expected: String,
    /// The value found, if it comes from a variable that is no setting of push0: then `key` is its name.
    pub(crate) found: Option<String>,
}

impl Invalid {
    /// Refuses the value of `key`; `expected` describes the accepted values.
    pub fn new(key: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            expected: expected.into(),
            found: None,
        }
    }

    /// Refuses the value of an environment variable that is no setting of push0, such as those of OpenTelemetry.
    pub(crate) fn in_variable(name: &str, found: &str, expected: &str) -> Self {
        Self {
            found: Some(found.to_owned()),
            ..Self::new(name, expected)
        }
    }
}
