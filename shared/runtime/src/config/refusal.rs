//! Refusal of a value by its type, with the path of the key. The value and its origin
//! are added afterwards.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use super::invalid::Invalid;

/// A problem with a key, without the value and its origin.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) path: Option<String>,
    pub(super) problem: Problem,
    /// The unknown or missing field; `at` appends this field to the path.
    field: Option<String>,
}

#[derive(Debug)]
pub(super) enum Problem {
    Unknown { known: &'static [&'static str] },
    Missing,
    Mismatch { expected: String },
    Other { message: String },
}

impl Problem {
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

impl Refusal {
    fn new(problem: Problem, field: Option<&str>) -> Self {
        Self {
            path: None,
            problem,
            field: field.map(str::to_owned),
        }
    }

    /// Sets the path of the refused key. The first call, at the innermost place, wins.
    pub(super) fn at(mut self, path: &str) -> Self {
        if self.path.is_none() {
            self.path = Some(match self.field.take() {
                Some(field) => join(path, &field),
                None => path.to_owned(),
            });
        }
        self
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        let problem = Problem::Mismatch {
            expected: invalid.expected,
        };
        Self {
            path: Some(invalid.key),
            problem,
            field: None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?}", self.problem, self.path)
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(
            Problem::Other {
                message: message.to_string(),
            },
            None,
        )
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(
            Problem::Mismatch {
                expected: expected.to_string(),
            },
            None,
        )
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(
            Problem::Mismatch {
                expected: expected.to_string(),
            },
            None,
        )
    }

    fn unknown_variant(_: &str, variants: &'static [&'static str]) -> Self {
        Self::new(
            Problem::Mismatch {
                expected: format!("one of: {}", variants.join(", ")),
            },
            None,
        )
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::new(Problem::Unknown { known }, Some(field))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Problem::Missing, Some(field))
    }
}

/// Returns the path of a key in the section at `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
