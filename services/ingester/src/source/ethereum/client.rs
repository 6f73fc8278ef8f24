//! HTTP client of a node: POST requests only, each limited in time and in the size of its answer.
//! Redirects, proxies and compression are not supported: a node that needs them requires another URL.

use super::{answer::ClientError, connections::Connections};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, InvalidHeaderValue, USER_AGENT},
};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use percent_encoding::percent_decode_str;
use push0_runtime::metrics::IntCounter;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use url::Url;

/// A client for one URL.
pub(super) struct Client {
    connections: Connections,
    /// Target of every request. Requests differ only in their bodies.
    uri: Uri,
    headers: HeaderMap,
}

/// Reasons for refusing a URL. No message repeats the URL.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidUrl {
    #[error("expected an http:// or https:// URL")]
    Scheme,
    #[error("not usable as an HTTP URL")]
    Uri,
    #[error("user and password cannot be sent: {0}")]
    Userinfo(InvalidHeaderValue),
    #[error("TLS: {0}")]
    Tls(String),
}

impl Client {
    pub(super) fn new(url: &Url, opened: IntCounter) -> Result<Self, InvalidUrl> {
        let secure = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(InvalidUrl::Scheme),
        };
        // Path and query are sent unchanged; user, password and fragment are not part of a request.
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let mut headers = HeaderMap::new();
        headers.insert(HOST, authority.parse().map_err(|_| InvalidUrl::Uri)?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let agent = concat!("push0-ingester/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        if let Some(credentials) = credentials(url) {
            headers.insert(AUTHORIZATION, credentials.map_err(InvalidUrl::Userinfo)?);
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(secure)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let endpoint = Uri::builder()
            .scheme(url.scheme())
            .authority(authority)
            .path_and_query("/");
        let endpoint = endpoint.build().map_err(|_| InvalidUrl::Uri)?;
        Ok(Self {
            connections: Connections::new(connector, endpoint, opened),
            uri: target.parse().map_err(|_| InvalidUrl::Uri)?,
            headers,
        })
    }

    /// Sends a body and returns the body of the answer, of at most `answer_max` bytes within `limit`. A failure keeps the
    /// beginning of its body, which may hold a reason.
    pub(super) async fn post(
        &self,
        body: String,
        answer_max: usize,
        limit: Duration,
    ) -> Result<Bytes, ClientError> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().clone_from(&self.headers);
        let exchange = self.connections.exchange(&request, answer_max);
        let exchanged = timeout(limit, exchange).await;
        let (status, body) = exchanged.unwrap_or(Err(ClientError::Timeout(limit)))?;
        if status.is_success() {
            Ok(body)
        } else if status.is_redirection() {
            Err(ClientError::Redirect(status.as_u16()))
        } else {
            Err(ClientError::Status(status.as_u16(), body))
        }
    }
}

/// Returns the `Authorization` header for the URL's user and password, if any.
fn credentials(url: &Url) -> Option<Result<HeaderValue, InvalidHeaderValue>> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut plain: Vec<u8> = percent_decode_str(url.username()).collect();
    plain.push(b':');
    plain.extend(percent_decode_str(url.password().unwrap_or_default()));
    let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(plain)));
    Some(value.map(|mut value| {
        value.set_sensitive(true);
        value
    }))
}

/// Returns the TLS configuration. The system's certificates cost memory, so they are loaded
/// only for `https`.
fn tls(secure: bool) -> Result<ClientConfig, InvalidUrl> {
    let failed = |error: &dyn std::fmt::Display| InvalidUrl::Tls(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?;
    let mut roots = RootCertStore::empty();
    if secure {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(failed(
                &"the system has no certificate authorities: expected ca-certificates or SSL_CERT_FILE",
            ));
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
