//! The state of the connection to the broker, for callers to watch.

/// State of the connection to the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Whether the connection is up now.
    pub up: bool,
    /// The number of interruptions. A receiver that derives its state from deliveries starts over when the
    /// number grows, since messages may have been lost.
    pub interruptions: u64,
}
