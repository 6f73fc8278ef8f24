//! The stream of changes, as server-sent events.

use super::{answer::Refused, interface::Interface};
use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use push0_bus::now;
use std::{collections::VecDeque, convert::Infallible, time::Duration};
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// How often a silent stream says that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
const ALIVE: &[u8] = b": alive\n\n";

/// What a client of the stream still gets.
struct Following {
    interface: Interface,
    ready: VecDeque<Bytes>,
    coming: Receiver<Bytes>,
}

impl Following {
    /// Returns the next bytes for the client; `None` at the end of the process.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            match tokio::time::timeout(ALIVE_EVERY, self.coming.recv()).await {
                Err(_) => return Some(Bytes::from_static(ALIVE)),
                Ok(Ok(frame)) => return Some(frame),
                Ok(Err(RecvError::Closed)) => return None,
                Ok(Err(RecvError::Lagged(_))) => {
                    // The client is too slow for each change, so it gets the whole state.
                    let (ready, coming) = self.interface.shared.follow(None, now()).ok()?;
                    (self.ready, self.coming) = (ready.into(), coming);
                }
            }
        }
    }
}

/// Streams changes. A client with the id of an earlier change continues after it, any other one begins with a
/// snapshot.
#[utoipa::path(
    get, path = "/api/v1/events",
    params(("Last-Event-ID" = Option<String>, Header, description = "The id of the last change that the client has")),
    responses((status = 200, content_type = "text/event-stream",
        description = "`event: reset` with a Snapshot, then `event: change` with a Change"))
)]
pub(super) async fn follow(
    State(interface): State<Interface>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let followed = interface.shared.follow(last, now());
    let (ready, coming) = followed.map_err(|error| Refused::away(error.to_string()))?;
    let following = Following {
        interface,
        ready: ready.into(),
        coming,
    };
    let frames = stream::unfold(following, async |mut following| {
        let frame = following.next().await?;
        Some((Ok::<Bytes, Infallible>(frame), following))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(frames)).into_response())
}
