//! Errors between a service and the broker.

/// A failed operation on the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The broker did not answer, or refused for the moment.
    #[error("{what}: {reason}")]
    Unavailable {
        /// The attempted operation, stream or key.
        what: String,
        /// The error text of the client or the broker.
        reason: String,
    },
    /// A provisioned stream, bucket or consumer does not exist.
    #[error("{what} is missing: run `push0 provision`; for a zkVM also `push0 pipeline apply FILE`")]
    Missing {
        /// The kind and name of the missing stream, bucket or consumer.
        what: String,
    },
    /// The connection was lost, or the client dropped messages because they came faster than they were read.
    /// The messages received so far may have gaps.
    #[error("the connection to the broker was interrupted")]
    Interrupted,
    /// The broker's permissions for this process's user do not cover a necessary operation.
    #[error("{0}")]
    Forbidden(std::sync::Arc<crate::Refusal>),
    /// A value that cannot be decoded from its stored bytes, or cannot be encoded for storing.
    #[error("{what}: {source}")]
    Corrupt {
        /// The subject or key of the value.
        what: String,
        /// The codec's description of the defect.
        source: push0_domain::codec::CodecError,
    },
    /// A revision of a definition was applied, messages name it, and it is gone.
    #[error(
        "revision {revision} of pipeline {pipeline} is lost: `push0 pipeline apply FILE --revision {revision}` puts it back"
    )]
    LostRevision {
        /// The pipeline of the definition.
        pipeline: push0_domain::PipelineId,
        /// The number of the revision.
        revision: u32,
    },
}

impl BusError {
    /// Returns whether stored state is damaged, so that its pipeline stands still until an operator has mended the state.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::LostRevision { .. })
    }

    pub(crate) fn unavailable(what: impl Into<String>, error: impl std::fmt::Display) -> Self {
        let reason = error.to_string();
        Self::Unavailable {
            what: what.into(),
            reason: if reason.contains(NO_LEADER) {
                "the brokers have no leader: most of them are away, or an election of some seconds is under way"
                    .to_owned()
            } else {
                reason
            },
        }
    }
}

/// Part of the broker's answer when no broker leads JetStream (JSClusterNotAvailErr in nats-server's errors.json).
const NO_LEADER: &str = "error code 10008";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_brokers_without_a_leader_says_so_in_words() {
        let told = "JetStream error: JetStream system temporarily unavailable (code 503, error code 10008)";
        let error = BusError::unavailable("push0_blocks", told).to_string();
        assert!(error.contains("no leader") && !error.contains("10008"), "{error}");
        let error = BusError::unavailable("push0_blocks", "timed out").to_string();
        assert_eq!(error, "push0_blocks: timed out");
    }
}
