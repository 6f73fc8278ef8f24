//! The `[nats]` section of the configuration.

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
        }
    }
}
