//! Recognizes answers about a stream or consumer from a copy without a leader. Such a copy answers too,
//! with a state that may be old (nats-server 2.12.8).

use crate::BusError;
use async_nats::jetstream::stream::ClusterInfo;

/// Refuses the state of a stream or consumer that was not given by its leader.
pub(crate) fn refuse_without_leader(what: &str, cluster: Option<&ClusterInfo>) -> Result<(), BusError> {
    if has_leader(cluster) {
        return Ok(());
    }
    Err(BusError::unavailable(what, "the broker asked knows no leader"))
}

/// Returns whether the answer comes from a leader. A broker without a cluster leads all that it has.
pub(crate) fn has_leader(cluster: Option<&ClusterInfo>) -> bool {
    cluster.is_none_or(|cluster| cluster.leader.as_ref().is_some_and(|leader| !leader.is_empty()))
}
