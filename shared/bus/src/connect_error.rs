//! Errors in the configuration of a connection.

/// An error in the `[nats]` section, independent of the broker.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL cannot be parsed.
    #[error("nats.url `{url}`: {reason}; expected nats://HOST:PORT, several separated by commas")]
    Url {
        /// The URL as configured, without the user and password before the `@`.
        url: String,
        /// The parser's error text.
        reason: String,
    },
    /// A configured file cannot be read.
    #[error("nats.{key} `{path}`: {source}")]
    File {
        /// The key in the configuration.
        key: &'static str,
        /// The configured path.
        path: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The client certificate or its private key is missing.
    #[error("nats.{given} is set without nats.{missing}; a client certificate needs both")]
    HalfCertificate {
        /// The key that is set.
        given: &'static str,
        /// The key that is missing.
        missing: &'static str,
    },
    /// The client refused the options.
    #[error("nats: {0}")]
    Client(String),
}
