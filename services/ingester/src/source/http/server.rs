//! `POST /v1/pipelines/{name}/blocks`: the server for submissions.
//!
//! The server is off unless configured. Without a token, every client able to reach the server can submit blocks, except
//! web pages of other origins, which a browser names. The number of connections, the size of bodies and the time for each
//! are bounded: the oldest idle connection makes room for a new one, and a body that comes slowly is not waited for. A
//! large body is read only when there is room.
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
    Extension, Json, Router,
    body::{Body, HttpBody},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    middleware::{Next, from_fn_with_state},
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
use push0_domain::{PipelineId, list::AtMost};
use push0_runtime::{
    Shutdown,
    connections::{Busy, Connections},
};
use serde_json::{json, value::RawValue};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

/// Largest body of a request, in bytes.
const BODY_MAX: usize = 16 * 1024 * 1024;
/// Most blocks in one request.
const BLOCKS_MAX: usize = 1000;
/// Number of connections served at a time. A further one closes the oldest idle one.
const CONNECTIONS_MAX: usize = 64;
/// Limit of the bodies in memory, in KiB, not counting those up to [`SMALL_MAX`]. A body counts until its
/// blocks are stored or dropped. The witnesses take another half of the body's size while the body is parsed; then
/// the body is dropped and only the witnesses remain.
const ROOM_KIB: usize = BODY_MAX / 1024;
/// Largest body, in bytes, that need not wait for room: one for each connection takes little memory.
const SMALL_MAX: usize = 64 * 1024;
/// Bytes read ahead on a connection before the body is consumed.
const BUFFER_MAX: usize = 64 * 1024;
/// Time limit for the head of a request, idle time included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a body may come without a minimum of bytes per second, and the minimum. A slow body holds room that others
/// wait for.
const BODY_SLACK: Duration = Duration::from_secs(2);
const BODY_RATE: u32 = 512 << 10;
/// Time limit for a body, the wait for room included.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for storing a submission on the broker, the wait for its turn included.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);
/// The answer while a pipeline waits for room on the broker.
const NO_ROOM: &str =
    "the broker is nearly full of blocks that are not proved yet: send the blocks again later";
/// Most bytes read and dropped of a body that is too large.
const DISCARD_MAX: usize = 4 * BODY_MAX;
/// Time limit for open requests when the service stops.
const LINGER: Duration = Duration::from_secs(6);

#[derive(Clone)]
struct Shared {
    desk: Desk,
    room: Arc<Semaphore>,
    /// Hash of the submitters' token. Hashes are compared, so that the time says nothing of the token.
    token: Option<blake3::Hash>,
}

/// Serves until the stop is requested and the requests open at that moment are answered.
pub(crate) async fn serve(
    listener: TcpListener,
    desk: Desk,
    token: Option<String>,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    let shared = Shared {
        desk,
        room: Arc::new(Semaphore::new(ROOM_KIB)),
        token: token.map(|token| blake3::hash(token.as_bytes())),
    };
    let router = Router::new()
        .route("/v1/pipelines/{name}/blocks", post(submit).get(look))
        .layer(from_fn_with_state(shared.clone(), admit))
        .with_state(shared);
    let mut connections = Connections::new(CONNECTIONS_MAX);
    let accepted = connections.accept(&listener, |stream, busy| {
        answer(stream, router.clone().layer(Extension(busy)), shutdown.clone())
    });
    tokio::select! {
        () = shutdown.requested() => {}
        never = accepted => match never {},
    }
    drop(listener);
    // The client must repeat a request that does not end in time.
    let _ = timeout(LINGER, connections.ended()).await;
    Ok(())
}

/// Refuses requests of web pages of other origins, and those without the token.
async fn admit(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let refused = refusal(shared.token, request.headers());
    match refused {
        Some((status, reason)) => problem(status, reason),
        None => next.run(request).await,
    }
}

fn refusal(token: Option<blake3::Hash>, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let header = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = header(header::HOST).unwrap_or_default();
    let is_foreign = |origin: &str| origin.split_once("://").is_none_or(|(_, there)| there != host);
    if headers.contains_key(header::ORIGIN) && header(header::ORIGIN).is_none_or(is_foreign) {
        return Some((
            StatusCode::FORBIDDEN,
            "the request comes from a page of another origin",
        ));
    }
    // Pages may send these types to any host without asking it.
    let is_of_a_form = |kind: &str| kind.starts_with("text/plain") || kind.starts_with("multipart/");
    if header(header::CONTENT_TYPE).is_some_and(is_of_a_form) {
        let reason = "expected the content type application/json";
        return Some((StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
    }
    let sent = header(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let sent = sent.map(|token| blake3::hash(token.trim().as_bytes()));
    let reason = "expected the header `Authorization: Bearer TOKEN` with the token of submit.token_file";
    (token.is_some() && sent != token).then_some((StatusCode::UNAUTHORIZED, reason))
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
        Taker::Full => Err(later(NO_ROOM)),
        Taker::Unknown => Err(unknown()),
    }
}

async fn submit(
    State(shared): State<Shared>,
    Extension(busy): Extension<Busy>,
    Path(name): Path<String>,
    body: Body,
) -> Response {
    let taker = match taker(&shared.desk, &name) {
        Ok(taker) => taker,
        Err(refused) => {
            let _ = timeout(BODY_TIMEOUT, discard(body)).await;
            return refused;
        }
    };
    let (room, body) = match timeout(BODY_TIMEOUT, read(&shared.room, body)).await {
        Ok(Some(read)) => read,
        Ok(None) => {
            let reason =
                format!("the body is incomplete, comes too slowly or has more than {BODY_MAX} bytes");
            return problem(StatusCode::PAYLOAD_TOO_LARGE, &reason);
        }
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 30 s"),
    };
    let _busy = busy.mark();
    let blocks = match parse(&body) {
        Ok(blocks) => blocks,
        Err(reason) => return problem(StatusCode::BAD_REQUEST, &reason),
    };
    drop(body);
    let (answer, outcome) = oneshot::channel();
    let stored = async {
        taker.send(Submission { blocks, answer, room }).await.ok()?;
        outcome.await.ok()
    };
    match timeout(STORE_TIMEOUT, stored).await {
        Ok(Some(Ok(accepted))) => {
            (StatusCode::ACCEPTED, Json(json!({ "accepted": accepted }))).into_response()
        }
        Ok(Some(Err(Refused::NoRoom))) => later(NO_ROOM),
        Ok(Some(Err(Refused::Conflict { position, conflict }))) => {
            problem(StatusCode::CONFLICT, &format!("blocks[{position}]: {conflict}"))
        }
        Ok(None) => later("this process no longer leads the pipeline: send the blocks again"),
        Err(_) => later("the broker has not stored the blocks yet: send them again"),
    }
}

/// Reads a body into one piece of memory. A large body waits for room, once its first part has come: a client that sends
/// nothing holds none. Returns `None` if the body is too large, ends early or comes too slowly.
async fn read(room: &Arc<Semaphore>, mut body: Body) -> Option<(Option<OwnedSemaphorePermit>, Bytes)> {
    let size = body.size_hint();
    let said = usize::try_from(size.lower()).unwrap_or(usize::MAX);
    let most = size.upper().and_then(|upper| usize::try_from(upper).ok());
    let most = most.map_or(BODY_MAX, |most| most.min(BODY_MAX));
    if said > BODY_MAX {
        discard(body).await;
        return None;
    }
    let mut permit = None;
    let (mut bytes, mut since, mut before) =
        (BytesMut::with_capacity(said.min(SMALL_MAX)), Instant::now(), 0);
    loop {
        if permit.is_none() && bytes.len() >= SMALL_MAX && most > SMALL_MAX {
            let permits = u32::try_from(most.div_ceil(1024)).unwrap_or(u32::MAX);
            // The semaphore is never closed.
            permit = room.clone().acquire_many_owned(permits).await.ok();
            bytes.reserve(said.saturating_sub(bytes.len()));
            (since, before) = (Instant::now(), bytes.len());
        }
        let patience = BODY_SLACK + Duration::from_secs((bytes.len() - before) as u64) / BODY_RATE;
        let Some(frame) = timeout_at(since + patience, body.frame()).await.ok()? else {
            return Some((permit, bytes.freeze()));
        };
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
    let items: AtMost<&RawValue, BLOCKS_MAX> =
        serde_json::from_str(text).map_err(|error| format!("the body: {error}"))?;
    if !(1..=BLOCKS_MAX).contains(&items.len) {
        return Err(format!("{} blocks: expected 1 to {BLOCKS_MAX}", items.len));
    }
    let parse = |(position, item): (usize, &&RawValue)| {
        submitted::parse(item.get()).map_err(|reason| format!("blocks[{position}]: {reason}"))
    };
    items.first.iter().enumerate().map(parse).collect()
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
