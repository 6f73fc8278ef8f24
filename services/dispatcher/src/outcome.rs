//! The outcomes of attempts, as far as they matter for the queue of a zkVM.

use push0_domain::message::{FailureClass, TaskResult};

/// The outcome of an attempt, as far as it says anything of the queue of its zkVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The attempt was completed.
    Completed,
    /// The attempt was completed, and its proof is still to be verified.
    Unverified,
    /// The attempt failed with this error, and the task may not be at fault.
    Failed(String),
    /// The prover died, or the attempt was stopped.
    Unknown,
}

impl Outcome {
    /// Returns the outcome that a result tells.
    pub fn of(result: &TaskResult) -> Self {
        let invalid = result
            .verdict
            .as_ref()
            .and_then(|verdict| verdict.invalid.clone());
        match (result.failure(), invalid) {
            (None, None) => Self::Completed,
            (None, Some(reason)) => Self::Failed(reason),
            (Some(failure), _)
                if failure.class.is_evidence() || failure.class == FailureClass::Surroundings =>
            {
                Self::Failed(failure.message)
            }
            (Some(_), _) => Self::Unknown,
        }
    }
}
