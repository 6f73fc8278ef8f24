//! HTTP server of every service: `/health/live`, `/health/ready`, `/metrics`.
//!
//! The server answers probes and scrapes, which are few and small. Each connection carries one request,
//! and the number of connections and the time for each are bounded, so that clients cannot exhaust the
//! service. Liveness says only that the process responds: a restart does not repair a broker.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::connections::Connections;
use crate::health::{Health, Readiness};
use crate::{HttpConfig, metrics};

/// Number of connections served at a time. A further one closes the oldest.
const MAX_CONNECTIONS: usize = 64;
/// Age at which a connection is closed: the usual scrape timeout of Prometheus.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(10);
/// Longest request head, in bytes; hyper's minimum is 8 KiB.
const MAX_REQUEST_HEAD: usize = 16 * 1024;

/// The server cannot listen on its address.
#[derive(Debug, thiserror::Error)]
#[error("http.listen: cannot listen on {address}")]
pub struct ListenError {
    /// Address that is taken, not of this machine, or not permitted.
    pub address: SocketAddr,
    source: io::Error,
}

/// A running server. Dropping this value ends the server.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl HttpServer {
    /// Returns the address of the server, with the port picked by the system if port 0 was configured.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Starts the server if the configuration has an address, and logs the address. Returns
/// `None` without one.
///
/// # Errors
/// The address is taken, not of this machine, or not permitted.
pub async fn serve(config: &HttpConfig, health: Health) -> Result<Option<HttpServer>, ListenError> {
    let Some(address) = config.listen else {
        return Ok(None);
    };
    let failed = |source| ListenError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let mut tasks = JoinSet::new();
    let router = router(health);
    tasks.spawn(async move {
        let mut connections = Connections::new(MAX_CONNECTIONS);
        // An answer takes no time, so the oldest connection waits for its request: none is busy.
        match connections
            .accept(&listener, |stream, _| answer(stream, router.clone()))
            .await {}
    });
    tracing::info!(%address, "listening for probes and scrapes");
    Ok(Some(HttpServer {
        address,
        _tasks: tasks,
    }))
}

fn router(health: Health) -> Router {
    Router::new()
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(scrape))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> (StatusCode, Json<Readiness>) {
    let readiness = health.readiness();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness))
}

async fn scrape(State(health): State<Health>) -> Response {
    let readiness = health.readiness();
    let waiting = readiness.not_ready.iter().map(|waiting| waiting.component);
    match metrics::text(waiting) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn answer(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_REQUEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A client that disconnected or is too slow does not concern the service.
    let _ = tokio::time::timeout(MAX_CONNECTION_AGE, connection).await;
}
