//! The `[nats]` section of the configuration.

use crate::Stream;
use serde::Deserialize;
use std::path::PathBuf;

/// Address of the broker and credentials of this process: the `[nats]` section of every service.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// One or more `nats://` or `tls://` URLs, separated by commas.
    pub url: String,
    /// A credentials file (JWT and seed).
    pub credentials: Option<PathBuf>,
    /// A file with an NKEY seed.
    pub nkey_seed: Option<PathBuf>,
    /// A certificate authority to trust besides the system's. Also makes TLS mandatory.
    pub tls_ca: Option<PathBuf>,
    /// A client certificate, which also needs `tls_key`.
    pub tls_cert: Option<PathBuf>,
    /// The private key of the client certificate.
    pub tls_key: Option<PathBuf>,
    /// The prefix of the subjects on which this process gets answers. Default for a process with an NKEY: `_INBOX_` and
    /// its public key, where no other user may listen.
    pub inbox_prefix: Option<String>,
    /// Set by adapters on a broker with accounts; not a setting.
    #[serde(skip)]
    pub membership: Option<Membership>,
    /// Set by a service whose account has no streams; not a setting. Its connection is not probed by requests for the state
    /// of streams, which the broker would refuse.
    #[serde(skip)]
    pub without_streams: bool,
}

/// How a prover or verifier reaches the streams from an account of its own.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The prefix of the broker's API in the account.
    pub api_prefix: String,
    /// The consumer from which the process takes work, and its stream: all of the API that it may ask about.
    pub consumer: (Stream, String),
    /// The process's own key and the word of its fleet; `None` for a process with a key of its own in `nkey_seed`.
    pub drawn: Option<DrawnKey>,
}

/// The key that a replica drew for itself.
#[derive(Clone)]
pub struct DrawnKey {
    /// The seed of the key.
    pub seed: String,
    /// The word of the fleet's credential for the key, shown as a token.
    pub word: String,
}

// Seed and word stay out of logs.
impl std::fmt::Debug for DrawnKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DrawnKey(…)")
    }
}

impl Default for NatsConfig {
    fn default() -> Self {
        let url = "nats://127.0.0.1:4222".into();
        Self {
            url,
            credentials: None,
            nkey_seed: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            inbox_prefix: None,
            membership: None,
            without_streams: false,
        }
    }
}
