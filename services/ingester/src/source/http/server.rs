//! `POST /v1/pipelines/{name}/blocks`: the server for submissions.
//!
//! Whoever reaches it can submit blocks, so it is off unless configured. Connections, bodies and the
//! time for each are bounded; a body is read only when there is room for it.

use super::{
    Refused, Submission,
    desk::{Desk, Taker},
};
use crate::source::submitted::{self, Submitted};
use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use push0_domain::PipelineId;
use push0_runtime::Shutdown;
use serde_json::{json, value::RawValue};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::timeout,
};

/// The largest body, in bytes.
const BODY_MAX: usize = 16 * 1024 * 1024;
/// The most blocks in one request.
const BLOCKS_MAX: usize = 1000;
/// Connections served at a time; more wait in the backlog of the socket.
const CONNECTIONS_MAX: usize = 64;
/// Bodies in memory at a time.
const BODIES_MAX: usize = 4;
/// How long a client may take for the head of a request, idle time included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a body may take, the wait for room included.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a submission may wait until the broker has stored it.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long open requests may take to end when the service stops.
const LINGER: Duration = Duration::from_secs(6);
/// Pause after a refused accept: out of descriptors, it would be refused again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone)]
struct Shared {
    desk: Desk,
    bodies: Arc<Semaphore>,
}

/// Serves until the stop is requested and the requests of that moment were answered.
pub(crate) async fn serve(listener: TcpListener, desk: Desk, shutdown: Shutdown) -> Result<(), Infallible> {
    let bodies = Arc::new(Semaphore::new(BODIES_MAX));
    let router = Router::new()
        .route("/v1/pipelines/{name}/blocks", post(submit))
        .with_state(Shared { desk, bodies });
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.requested() => break,
            accepted = async {
                // The semaphore is never closed.
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (slot, Ok((stream, _))) => {
                let (router, shutdown) = (router.clone(), shutdown.clone());
                connections.spawn(async move {
                    answer(stream, router, shutdown).await;
                    drop(slot);
                });
            }
            (_, Err(error)) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    // A request that does not end in time is its client's to repeat.
    let _ = timeout(LINGER, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

async fn answer(stream: TcpStream, router: Router, shutdown: Shutdown) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    // A client that went away is its own concern.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn submit(State(shared): State<Shared>, Path(name): Path<String>, body: Body) -> Response {
    let unknown = || {
        problem(
            StatusCode::NOT_FOUND,
            &format!("no pipeline `{name:.60}` takes blocks by HTTP"),
        )
    };
    let Ok(pipeline) = name.parse::<PipelineId>() else {
        return unknown();
    };
    let taker = match shared.desk.taker(&pipeline) {
        Taker::Here(taker) => taker,
        Taker::Elsewhere => return later("another process leads this pipeline, or none yet"),
        Taker::Unknown => return unknown(),
    };
    let read = timeout(BODY_TIMEOUT, async {
        let room = shared.bodies.acquire().await;
        (room, to_bytes(body, BODY_MAX).await)
    });
    let (_room, body) = match read.await {
        Ok((room, Ok(body))) => (room, body),
        Ok((_, Err(_))) => {
            let reason = format!("the body: expected all of it, at most {BODY_MAX} bytes");
            return problem(StatusCode::PAYLOAD_TOO_LARGE, &reason);
        }
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the body: expected within 30 s"),
    };
    let blocks = match parse(&body) {
        Ok(blocks) => blocks,
        Err(reason) => return problem(StatusCode::BAD_REQUEST, &reason),
    };
    let (answer, outcome) = oneshot::channel();
    let stored = async {
        taker.send(Submission { blocks, answer }).await.ok()?;
        outcome.await.ok()
    };
    match timeout(STORE_TIMEOUT, stored).await {
        Ok(Some(Ok(accepted))) => {
            (StatusCode::ACCEPTED, Json(json!({ "accepted": accepted }))).into_response()
        }
        Ok(Some(Err(Refused { position, conflict }))) => {
            problem(StatusCode::CONFLICT, &format!("blocks[{position}]: {conflict}"))
        }
        Ok(None) => later("this process leads the pipeline no longer"),
        Err(_) => later("the broker has not stored the blocks yet"),
    }
}

fn parse(body: &[u8]) -> Result<Vec<Submitted>, String> {
    let text = std::str::from_utf8(body).map_err(|_| "the body: expected UTF-8".to_owned())?;
    if !text.trim_start().starts_with('[') {
        return Ok(vec![submitted::parse(text)?]);
    }
    let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| format!("the body: {error}"))?;
    if items.is_empty() || items.len() > BLOCKS_MAX {
        return Err(format!("{} blocks: expected 1 to {BLOCKS_MAX}", items.len()));
    }
    let parse = |(position, item): (usize, &&RawValue)| {
        submitted::parse(item.get()).map_err(|reason| format!("blocks[{position}]: {reason}"))
    };
    items.iter().enumerate().map(parse).collect()
}

fn problem(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({ "error": reason }))).into_response()
}

/// Not now, not here: the same request is right in a moment.
fn later(reason: &str) -> Response {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, reason);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    response
}
