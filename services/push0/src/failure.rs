//! Why a command failed, and the code to exit with.

use push0_runtime::exit::{self, BoxError, chain};
use std::process::ExitCode;

/// The end of a command that did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line, a file or a variable is wrong: exit 64.
    Usage(String),
    /// Something failed: exit 1.
    Failed(BoxError),
    /// The command has said what there is to say: exit 1.
    Told,
}

impl Failure {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into().into())
    }

    /// Tells it on stderr.
    pub(crate) fn tell(self) -> ExitCode {
        let code = match self {
            Self::Usage(_) => exit::CONFIG,
            Self::Failed(_) => exit::FAILURE,
            Self::Told => return ExitCode::from(exit::FAILURE),
        };
        crate::output::note(&format!("push0: {}", self.text()));
        ExitCode::from(code)
    }

    /// Why, in words.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Usage(text) => text.clone(),
            Self::Failed(error) => chain(error.as_ref()),
            Self::Told => String::new(),
        }
    }
}

// `Failure` is no error itself, so that any error converts into it.
impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}
