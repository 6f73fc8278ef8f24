//! The HTTP interface.

mod actions;
mod answer;
mod api;
mod events;
mod interface;
mod limits;
mod patience;
mod pieces;
mod read;
mod refused;
#[cfg(test)]
mod tests;

pub(crate) use interface::Interface;

use crate::page;
use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, Request},
    middleware::{self, Next},
    response::Response,
    routing::{any, get, post},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use patience::Patient;
use push0_runtime::{
    BoxError,
    connections::{Busy, Connections},
};
use std::{future::Future, io, net::SocketAddr, time::Duration};
use tokio::net::{TcpListener, TcpStream};

/// Number of connections served at a time; each page keeps one open. A further one closes the oldest idle one.
const CONNECTIONS_MAX: usize = 256;
/// How long a client may take for the head of a request, and stay idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// Longest body of a request, in bytes.
const BODY_MAX: usize = 16 * 1024;
/// How long a client may take nothing of an answer.
const STALL_MAX: Duration = Duration::from_secs(30);

/// Listens, and returns the work of answering.
///
/// # Errors
/// The address is taken, not of this machine, or not permitted.
pub(crate) async fn serve(
    address: SocketAddr,
    interface: Interface,
) -> Result<impl Future<Output = ()>, BoxError> {
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.map_err(|error| format!("gateway.listen: cannot listen on {address}: {error}"))?;
    let address = listener.local_addr()?;
    tracing::info!(url = %format!("http://{address}/"), "the page is served");
    Ok(accept(listener, router(interface)))
}

fn router(interface: Interface) -> Router {
    let in_turn = Router::new()
        .route("/api/v1/pipelines/{pipeline}", get(read::pipeline))
        .route("/api/v1/pipelines/{pipeline}/blocks", get(read::blocks))
        .route("/api/v1/pipelines/{pipeline}/blocks/{block}", get(read::block))
        .route("/api/v1/dead-letters", get(read::letters))
        .route_layer(middleware::from_fn_with_state(interface.clone(), answer::in_turn));
    let read = Router::new()
        .merge(in_turn)
        .route("/api/v1/session", get(read::session))
        // All clients share one text of these.
        .route("/api/v1/snapshot", get(read::snapshot))
        .route("/api/v1/events", get(events::follow))
        .route(
            "/api/v1/pipelines/{pipeline}/blocks/{block}/proofs/{proof}",
            get(read::proof),
        )
        .route_layer(middleware::from_fn(answer::in_time))
        .route_layer(middleware::from_fn_with_state(interface.clone(), answer::readers));
    let operate = Router::new()
        .route("/api/v1/dead-letters/{id}/retry", post(actions::retry_letter))
        .route("/api/v1/pipelines/{pipeline}/cancel", post(actions::cancel))
        .route_layer(middleware::from_fn_with_state(interface.clone(), answer::act))
        .route_layer(middleware::from_fn_with_state(
            interface.clone(),
            answer::operators,
        ));
    let unknown = Router::new()
        .route("/api", any(answer::nothing))
        .route("/api/", any(answer::nothing))
        .route("/api/{*rest}", any(answer::nothing));
    let api = Router::new().merge(read).merge(operate).merge(unknown);
    Router::new()
        .merge(
            api.layer(middleware::map_response(answer::in_words))
                .layer(middleware::map_response(answer::uncached)),
        )
        .route("/openapi.json", get(api::document))
        .fallback(page::file)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::map_response(guard))
        .layer(middleware::from_fn(keep))
        .with_state(interface)
}

async fn guard(mut response: Response) -> Response {
    for (name, value) in page::GUARDS {
        response.headers_mut().insert(name, value);
    }
    response
}

async fn accept(listener: TcpListener, router: Router) {
    let mut connections = Connections::new(CONNECTIONS_MAX);
    let accepted = connections.accept(&listener, |stream, busy| {
        answer(stream, router.clone().layer(Extension(busy)))
    });
    match accepted.await {}
}

/// Keeps a connection open while its request is handled. A stream of changes may be closed to make room: its client
/// continues after the last change that it has.
async fn keep(Extension(busy): Extension<Busy>, request: Request, next: Next) -> Response {
    let _busy = busy.mark();
    next.run(request).await
}

async fn answer(stream: TcpStream, router: Router) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(
            TokioIo::new(Patient::new(stream, STALL_MAX)),
            TowerToHyperService::new(router),
        );
    // A client that disconnected is no concern of the service.
    if let Err(error) = connection.await {
        let error: io::Error = io::Error::other(error);
        tracing::debug!(%error, "a connection ended");
    }
}
