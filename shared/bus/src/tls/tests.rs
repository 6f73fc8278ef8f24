use super::*;
use async_nats::rustls::{ServerConfig, ServerConnection};
use std::{io::Write, net::TcpListener, path::PathBuf};

/// Returns a file beside this one: an authority, and the certificate of `other.example` with its key.
fn pem(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "src/tls", name].iter().collect()
}

fn refused(config: NatsConfig) -> String {
    let refused = config.check_files().expect_err("a wrong file is refused");
    format!("{refused}")
}

#[test]
fn wrong_files_are_named_before_the_first_connection() {
    let nowhere = Some(PathBuf::from("/nowhere"));
    let key = Some(pem("server.key"));
    let with = |make: fn(&mut NatsConfig, Option<PathBuf>), path: &Option<PathBuf>| {
        let mut config = NatsConfig::default();
        make(&mut config, path.clone());
        refused(config)
    };
    assert!(with(|c, p| c.tls_ca = p, &nowhere).starts_with("nats.tls_ca `/nowhere`: No such file"));
    assert!(with(|c, p| c.tls_ca = p, &key).ends_with("expected a certificate in PEM"));
    assert!(with(|c, p| c.nkey_seed = p, &nowhere).starts_with("nats.nkey_seed `/nowhere`: No such file"));
    assert!(with(|c, p| c.nkey_seed = p, &key).contains("expected an NKEY seed"));
    let pair = |cert: &str, key: &str| NatsConfig {
        tls_cert: Some(pem(cert)),
        tls_key: Some(pem(key)),
        ..NatsConfig::default()
    };
    assert!(refused(pair("server.pem", "ca.pem")).contains("expected a private key in PEM"));
    assert!(refused(pair("ca.pem", "server.key")).contains("it is not the key of nats.tls_cert"));
    assert!(pair("server.pem", "server.key").check_files().is_ok());
}

/// Serves one handshake like a broker that requires TLS, as `other.example`.
fn broker() -> u16 {
    let chain = certificates("tls_cert", &pem("server.pem")).expect("a certificate");
    let key = std::fs::read(pem("server.key")).expect("a key");
    let key = PrivateKeyDer::from_pem_slice(&key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream
            .write_all(b"INFO {\"tls_required\":true}\r\n")
            .expect("written");
        let mut connection = ServerConnection::new(Arc::new(config)).expect("a connection");
        while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
    });
    port
}

#[test]
fn a_failed_handshake_has_a_reason() {
    let stranger = trial(&NatsConfig::default(), false, "127.0.0.1", broker()).expect("a reason");
    assert!(stranger.contains("UnknownIssuer"), "{stranger}");
    let trusting = NatsConfig {
        tls_ca: Some(pem("ca.pem")),
        ..NatsConfig::default()
    };
    let wrong_name = trial(&trusting, true, "127.0.0.1", broker()).expect("a reason");
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
}
