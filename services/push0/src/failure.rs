//! Failure of a command, with its exit code.

use push0_bus::BusError;
use push0_domain::plain::plain;
use push0_runtime::exit::{self, BoxError, chain};
use std::io::Write as _;
use std::process::ExitCode;

/// Reason for which a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line, a file or an environment variable is wrong: exit code 64.
    Usage(String),
    /// The command failed: exit code 1.
    Failed(BoxError),
    /// The command failed and has already printed the reason: exit code 1.
    Told,
}

impl Failure {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into().into())
    }

    /// Returns whether the broker did not answer or refused for the moment, so that a later try may succeed.
    pub(crate) fn is_brokers_absence(&self) -> bool {
        let Self::Failed(error) = self else { return false };
        matches!(
            error.downcast_ref(),
            Some(BusError::Unavailable { .. } | BusError::Interrupted)
        )
    }

    /// Prints the reason to stderr and returns the exit code.
    pub(crate) fn tell(self) -> ExitCode {
        let code = match self {
            Self::Usage(_) => exit::CONFIG,
            Self::Failed(_) => exit::FAILURE,
            Self::Told => return ExitCode::from(exit::FAILURE),
        };
        // A closed stderr must not change the exit code.
        let _ = writeln!(std::io::stderr().lock(), "push0: {}", plain(&self.text()));
        ExitCode::from(code)
    }

    /// Returns the reason as text; empty if it is already printed.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Usage(text) => text.clone(),
            Self::Failed(error) => match error.downcast_ref() {
                Some(BusError::Corrupt { .. }) => format!("{error}; `push0 repair` mends it"),
                _ => chain(error.as_ref()),
            },
            Self::Told => String::new(),
        }
    }
}

// `Failure` does not implement `Error`, so that this conversion from any error is possible.
impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}
