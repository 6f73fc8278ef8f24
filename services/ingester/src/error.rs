//! Errors that end the ingester as a whole. Trouble with one pipeline or one block never does.

use push0_bus::ConnectError;
use push0_runtime::{TaskError, metrics::MetricError};
use std::net::SocketAddr;

/// A failure of the whole service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings in the section `nats` cannot be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A metric cannot be registered.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// The address for submissions is taken, or not of this machine.
    #[error("submit.listen: cannot listen on {address}")]
    Listen {
        /// The address in `submit.listen`.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file with the token of submitters cannot be used.
    #[error("{0}")]
    Token(push0_runtime::BoxError),
    /// One of the service's tasks failed.
    #[error(transparent)]
    Task(#[from] TaskError),
}
