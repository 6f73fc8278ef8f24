//! Answers in pieces: the owner of the answer's memory lives until the client has it.

use super::refused::Refused;
use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures::stream;
use std::convert::Infallible;
use tokio::sync::OwnedSemaphorePermit;

/// The length of a piece: a connection asks for the next one when it has written most of this one.
const PIECE: usize = 16 << 10;
/// Longest answer, in bytes.
const ANSWER_MAX: usize = 8 << 20;

/// Takes the next piece off some bytes; `None` if there are no more.
pub(super) fn next(bytes: &mut Bytes) -> Option<Bytes> {
    let piece = bytes.split_to(bytes.len().min(PIECE));
    (!piece.is_empty()).then_some(piece)
}

/// Makes an answer hold a permit until its client has taken it.
pub(super) async fn holding(response: Response, permit: OwnedSemaphorePermit) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, ANSWER_MAX).await else {
        return Refused::away("The answer is too long.").into_response();
    };
    parts.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    let rest = stream::unfold((bytes, permit), async |(mut bytes, permit)| {
        let piece = next(&mut bytes)?;
        Some((Ok::<Bytes, Infallible>(piece), (bytes, permit)))
    });
    Response::from_parts(parts, Body::from_stream(rest))
}
