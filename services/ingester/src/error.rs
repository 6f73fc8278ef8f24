//! Why the ingester as a whole ends. What concerns one pipeline or one block never ends it.

use push0_bus::ConnectError;
use push0_runtime::{TaskError, metrics::MetricError};
use std::net::SocketAddr;

/// A failure of the whole service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The section `nats` cannot work.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A metric cannot be registered.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// The address for submissions is taken or not of this machine.
    #[error("submit.listen: cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// One of its tasks failed.
    #[error(transparent)]
    Task(#[from] TaskError),
}
