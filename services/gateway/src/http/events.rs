//! The stream of changes, as server-sent events.

use super::{interface::Interface, pieces, refused::Refused};
use crate::{
    feed::{Piece, Place},
    shared::Start,
};
use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use push0_bus::now;
use std::{convert::Infallible, time::Duration};
use tokio::sync::watch;

/// How often a silent stream says that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
const ALIVE: &[u8] = b": alive\n\n";

/// What a client of the stream still gets.
struct Following {
    interface: Interface,
    /// What is left of a snapshot.
    snapshot: Bytes,
    place: Place,
    told: watch::Receiver<u64>,
}

impl Following {
    fn begin(&mut self, start: Start) {
        self.snapshot = start.snapshot.unwrap_or_default();
        self.place = start.place;
    }

    /// Returns the next bytes for the client; `None` if the client must come back.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(piece) = pieces::next(&mut self.snapshot) {
                return Some(piece);
            }
            // A change that comes after this line is noticed below.
            self.told.borrow_and_update();
            match self.interface.shared.piece(&mut self.place) {
                Piece::Bytes(bytes) => return Some(bytes),
                Piece::Lost => {
                    // The client is too slow for each change, so it gets the whole state.
                    let start = self.interface.shared.start(None, now()).ok()?;
                    self.begin(start);
                }
                Piece::Torn => return None,
                Piece::Later => match tokio::time::timeout(ALIVE_EVERY, self.told.changed()).await {
                    Err(_) => return Some(Bytes::from_static(ALIVE)),
                    Ok(changed) => changed.ok()?,
                },
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
    let start = interface.shared.start(last, now())?;
    let mut following = Following {
        told: interface.shared.follow(),
        interface,
        snapshot: Bytes::new(),
        place: start.place,
    };
    following.begin(start);
    let frames = stream::unfold(following, async |mut following| {
        let frame = following.next().await?;
        Some((Ok::<Bytes, Infallible>(frame), following))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream")];
    Ok((headers, Body::from_stream(frames)).into_response())
}
