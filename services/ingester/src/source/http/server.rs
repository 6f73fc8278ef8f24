//! `POST /v1/pipelines/{name}/blocks`: the server for submissions.
//!
//! Every client able to reach the server can submit blocks, so the server is off unless configured. The
//! number of connections, the size of bodies and the time for each are bounded; a large body is read only
//! when there is room.
//!
//! Only the process that leads a pipeline takes its blocks. Another process answers 503 and closes the
//! connection, so that a load balancer can route the repeated request to the leader over a new
//! connection. `GET` of the same path tells whether a `POST` would be taken, without sending a body.

use super::{
    desk::{Desk, Taker},
    submission::{Refused, Submission},
};
use crate::source::submitted::{self, Submitted};
use axum::{
    Json, Router,
    body::{Body, HttpBody},
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
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
    sync::{Semaphore, SemaphorePermit, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

/// Largest body of a request, in bytes.
const BODY_MAX: usize = 16 * 1024 * 1024;
/// Most blocks in one request.
const BLOCKS_MAX: usize = 1000;
/// Number of connections served at a time; more wait in the backlog of the socket.
const CONNECTIONS_MAX: usize = 64;
/// Limit of the bodies in memory, in KiB, not counting those up to [`SMALL_MAX`]. A body counts until its
/// request is answered. The witnesses take another half of the body's size while the body is parsed; then
/// the body is dropped and only the witnesses remain.
const ROOM_KIB: usize = BODY_MAX / 1024;
/// Largest body, in bytes, that need not wait for room: one for each connection takes little memory.
const SMALL_MAX: usize = 64 * 1024;
/// Bytes read ahead on a connection before the body is consumed.
const BUFFER_MAX: usize = 64 * 1024;
/// Time limit for the head of a request, idle time included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for a body, the wait for room included.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for storing a submission on the broker, the wait for its turn included.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes read and dropped of a body that is too large.
const DISCARD_MAX: usize = 4 * BODY_MAX;
/// Time limit for open requests when the service stops.
const LINGER: Duration = Duration::from_secs(6);
/// Pause after a failed accept: without free file descriptors, the next accept would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone)]
struct Shared {
    desk: Desk,
    room: Arc<Semaphore>,
}

/// Serves until the stop is requested and the requests open at that moment are answered.
pub(crate) async fn serve(listener: TcpListener, desk: Desk, shutdown: Shutdown) -> Result<(), Infallible> {
    let room = Arc::new(Semaphore::new(ROOM_KIB));
    let router = Router::new()
        .route("/v1/pipelines/{name}/blocks", post(submit).get(look))
        .with_state(Shared { desk, room });
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
    // The client must repeat a request that does not end in time.
    let _ = timeout(LINGER, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

async fn answer(stream: TcpStream, router: Router, shutdown: Shutdown) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    // A client that disconnected does not concern the service.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Answers whether this process takes blocks of the pipeline now.
async fn look(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    match taker(&shared.desk, &name) {
        Ok(_) => Json(json!({ "leads": true })).into_response(),
        Err(refused) => refused,
    }
}

/// Returns the recipient of a pipeline's blocks, or the response to send if this process takes none.
#[expect(clippy::result_large_err, reason = "the error is the response")]
fn taker(desk: &Desk, name: &str) -> Result<mpsc::Sender<Submission>, Response> {
    let unknown = || {
        let reason = format!("no pipeline `{name:.60}` takes blocks by HTTP");
        problem(StatusCode::NOT_FOUND, &reason)
    };
    let pipeline = name.parse::<PipelineId>().map_err(|_| unknown())?;
    match desk.taker(&pipeline) {
        Taker::Here(taker) => Ok(taker),
        Taker::Elsewhere => Err(later(
            "this process does not lead the pipeline: send the blocks again, here or to another ingester",
        )),
        Taker::Unknown => Err(unknown()),
    }
}

async fn submit(State(shared): State<Shared>, Path(name): Path<String>, body: Body) -> Response {
    let taker = match taker(&shared.desk, &name) {
        Ok(taker) => taker,
        Err(refused) => return refused,
    };
    let (_room, body) = match timeout(BODY_TIMEOUT, read(&shared.room, body)).await {
        Ok(Some(read)) => read,
        Ok(None) => {
            let reason = format!("the body is incomplete or has more than {BODY_MAX} bytes");
            return problem(StatusCode::PAYLOAD_TOO_LARGE, &reason);
        }
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 30 s"),
    };
    let blocks = match parse(&body) {
        Ok(blocks) => blocks,
        Err(reason) => return problem(StatusCode::BAD_REQUEST, &reason),
    };
    drop(body);
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
        Ok(None) => later("this process no longer leads the pipeline: send the blocks again"),
        Err(_) => later("the broker has not stored the blocks yet: send them again"),
    }
}

/// Reads a body into one piece of memory, once there is room. Returns `None` if the body is too large
/// or ends early.
async fn read(room: &Semaphore, mut body: Body) -> Option<(Option<SemaphorePermit<'_>>, Bytes)> {
    let size = body.size_hint();
    let said = usize::try_from(size.lower()).unwrap_or(usize::MAX);
    let most = size.upper().and_then(|upper| usize::try_from(upper).ok());
    let most = most.map_or(BODY_MAX, |most| most.min(BODY_MAX));
    if said > BODY_MAX {
        discard(body).await;
        return None;
    }
    let permit = if most > SMALL_MAX {
        let permits = u32::try_from(most.div_ceil(1024)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        room.acquire_many(permits).await.ok()
    } else {
        None
    };
    let mut bytes = BytesMut::with_capacity(said);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > BODY_MAX {
            drop(bytes);
            discard(body).await;
            return None;
        }
        bytes.extend_from_slice(&data);
    }
    Some((permit, bytes.freeze()))
}

/// Reads and drops the rest of a body, up to a limit. A client still sending when the connection closes
/// would see the closed connection instead of the answer.
async fn discard(mut body: Body) {
    let mut left = DISCARD_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

fn parse(body: &[u8]) -> Result<Vec<Submitted>, String> {
    let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8".to_owned())?;
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

/// Returns a 503 with the request to try again soon. The connection is closed, because a retry over it
/// would reach this process again.
fn later(reason: &str) -> Response {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, reason);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}
