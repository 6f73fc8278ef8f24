//! What can go wrong between a service and the broker.

/// A failed operation on the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The broker did not answer, or said no in a way that may pass.
    #[error("{what}: {reason}")]
    Unavailable {
        /// What was attempted.
        what: String,
        /// What the client or the broker said.
        reason: String,
    },
    /// Something that provisioning makes is not there.
    #[error("{what} is missing: run `push0 provision` (and `push0 pipeline apply FILE` for its zkVMs)")]
    Missing {
        /// A stream, bucket or consumer.
        what: String,
    },
    /// The connection was lost or the broker dropped messages: what was received may have gaps.
    #[error("the connection to the broker was interrupted")]
    Interrupted,
    /// The broker's user of this process may not do what the work needs.
    #[error("{0}")]
    Forbidden(std::sync::Arc<crate::Refusal>),
    /// A stored value is not what its place promises.
    #[error("{what}: {source}")]
    Corrupt {
        /// Where it lies.
        what: String,
        /// What is wrong with it.
        source: push0_domain::codec::CodecError,
    },
}

impl BusError {
    pub(crate) fn unavailable(what: impl Into<String>, error: impl std::fmt::Display) -> Self {
        Self::Unavailable {
            what: what.into(),
            reason: error.to_string(),
        }
    }
}
