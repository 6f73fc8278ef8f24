//! Mistakes in the files of `[nats]`, found before the first connection, and the reason why a handshake fails. The
//! client names neither: it tries on with `IO error`.

use crate::{ConnectError, NatsConfig};
use async_nats::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    sign::CertifiedKey,
};
use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

/// Time limit for each answer of the broker in a trial.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Most bytes of the broker's first line.
const INFO_MAX: u64 = 64 << 10;

impl NatsConfig {
    /// Reads the configured files.
    ///
    /// # Errors
    /// A file is missing, unreadable or of the wrong kind; a certificate and a key do not belong together.
    pub fn check_files(&self) -> Result<(), ConnectError> {
        if let Some(path) = &self.nkey_seed {
            let seed = std::fs::read_to_string(path).map_err(|e| file("nkey_seed", path, e))?;
            nkeys::KeyPair::from_seed(seed.trim()).map_err(|_| {
                unusable(
                    "nkey_seed",
                    path,
                    "expected an NKEY seed, a line that begins with SU",
                )
            })?;
        }
        if let Some(path) = &self.credentials {
            std::fs::read_to_string(path).map_err(|e| file("credentials", path, e))?;
        }
        client_config(self).map(drop)
    }
}

fn file(key: &'static str, path: &Path, source: io::Error) -> ConnectError {
    ConnectError::File {
        key,
        path: path.display().to_string(),
        source,
    }
}

fn unusable(key: &'static str, path: &Path, expected: impl Into<String>) -> ConnectError {
    file(key, path, io::Error::new(ErrorKind::InvalidData, expected.into()))
}

/// Reads the certificates of a file, at least one.
fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let bytes = std::fs::read(path).map_err(|e| file(key, path, e))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|e| unusable(key, path, format!("expected certificates in PEM: {e}")))?;
    if all.is_empty() {
        return Err(unusable(key, path, "expected a certificate in PEM"));
    }
    Ok(all)
}

/// Builds the configuration of a handshake, as the client does.
fn client_config(config: &NatsConfig) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &config.tls_ca {
        for certificate in certificates("tls_ca", path)? {
            let added = roots.add(certificate);
            added.map_err(|e| unusable("tls_ca", path, format!("expected a certificate authority: {e}")))?;
        }
    }
    let half = |given, missing| ConnectError::HalfCertificate { given, missing };
    let client = |e: &dyn std::fmt::Display| ConnectError::Client(e.to_string());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| client(&e))?
        .with_root_certificates(roots);
    match (&config.tls_cert, &config.tls_key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(_), None) => Err(half("tls_cert", "tls_key")),
        (None, Some(_)) => Err(half("tls_key", "tls_cert")),
        (Some(cert), Some(key)) => {
            let chain = certificates("tls_cert", cert)?;
            let bytes = std::fs::read(key).map_err(|e| file("tls_key", key, e))?;
            let private = PrivateKeyDer::from_pem_slice(&bytes)
                .map_err(|e| unusable("tls_key", key, format!("expected a private key in PEM: {e}")))?;
            CertifiedKey::from_der(chain.clone(), private.clone_key(), &provider)
                .map_err(|e| unusable("tls_key", key, format!("it is not the key of nats.tls_cert: {e}")))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|e| client(&e))
        }
    }
}

/// Tries a handshake with a listening broker. Returns the reason of a failure; `None` if it succeeds, or
/// if no TLS is asked for. Blocks the thread for a second at most.
pub(crate) fn trial(config: &NatsConfig, requires_tls: bool, host: &str, port: u16) -> Option<String> {
    let attempt = || -> io::Result<()> {
        let stream = TcpStream::connect((host, port))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let mut info = Vec::new();
        BufReader::with_capacity(1, (&stream).take(INFO_MAX)).read_until(b'\n', &mut info)?;
        let broker_has_tls = {
            let info = String::from_utf8_lossy(&info);
            info.contains("\"tls_required\":true") || info.contains("\"tls_available\":true")
        };
        match (requires_tls, broker_has_tls) {
            (false, false) => return Ok(()),
            (true, false) => {
                return Err(io::Error::other(
                    "TLS is required here, and the broker offers none",
                ));
            }
            _ => {}
        }
        let tls = client_config(config).map_err(io::Error::other)?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::new(tls), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        // A broker that refuses the client's certificate says so after the handshake.
        match stream.read(&mut [0; 1]) {
            Err(e) if !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(e),
            _ => Ok(()),
        }
    };
    // A broker that does not answer, or ends the connection, has failed no handshake.
    let error = attempt().err()?;
    let is_of_tls = matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::Other);
    is_of_tls.then(|| format!("the TLS handshake fails: {error}"))
}

#[cfg(test)]
mod tests;
