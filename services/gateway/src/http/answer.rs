//! Checks before each request: rights, and how much is under way.

use super::{interface::Interface, pieces, refused::Refused};
use crate::access::{Caller, Request, Role};
use axum::{
    body::to_bytes,
    extract::{Request as HttpRequest, State},
    http::{HeaderMap, HeaderName, HeaderValue, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::time::Duration;
use tokio::time::timeout;

/// How long a question may take, but for the time in which its client takes the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Longest text of a refusal, in bytes.
const REASON_MAX: usize = 4096;
/// How long an action may take: a retry looks through all letters of its pipeline.
const ACT_WITHIN: Duration = Duration::from_secs(120);

/// Admits clients with any role.
pub(super) async fn readers(
    State(interface): State<Interface>,
    request: HttpRequest,
    next: Next,
) -> Response {
    admit(&interface, Role::Read, request, next).await
}

/// Admits clients with the role `operate`.
pub(super) async fn operators(
    State(interface): State<Interface>,
    request: HttpRequest,
    next: Next,
) -> Response {
    admit(&interface, Role::Operate, request, next).await
}

async fn admit(interface: &Interface, role: Role, mut request: HttpRequest, next: Next) -> Response {
    match interface.tokens.admit(parts(request.headers()), role) {
        Ok(caller) => {
            request.extensions_mut().insert::<Caller>(caller);
            next.run(request).await
        }
        Err(denied) => Refused::from(denied).into_response(),
    }
}

fn parts(headers: &HeaderMap) -> Request<'_> {
    // A value that is no text is a wrong one, and not an absent one.
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    Request {
        authorization: text(header::AUTHORIZATION),
        host: text(header::HOST),
        origin: text(header::ORIGIN),
    }
}

/// Answers questions in turn.
pub(super) async fn in_turn(
    State(interface): State<Interface>,
    request: HttpRequest,
    next: Next,
) -> Response {
    match interface.limits.answer().await {
        Ok(permit) => pieces::holding(next.run(request).await, permit).await,
        Err(refused) => refused.into_response(),
    }
}

/// Performs actions in turn.
pub(super) async fn act(State(interface): State<Interface>, request: HttpRequest, next: Next) -> Response {
    match interface.limits.action().await {
        Ok(_permit) => within(ACT_WITHIN, request, next).await,
        Err(refused) => refused.into_response(),
    }
}

/// Ends questions that take too long, as while the broker is away.
pub(super) async fn in_time(request: HttpRequest, next: Next) -> Response {
    within(ANSWER_WITHIN, request, next).await
}

async fn within(time: Duration, request: HttpRequest, next: Next) -> Response {
    let answer = timeout(time, next.run(request)).await;
    answer.unwrap_or_else(|_| Refused::away("The answer took too long.").into_response())
}

/// Gives every refusal a body that says why, also those of the router, which have a line of text or nothing.
pub(super) async fn in_words(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_told = kind.is_some_and(|kind| kind == "application/json");
    if is_told || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, REASON_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let reason = if text.is_empty() {
        status.canonical_reason().unwrap_or_default()
    } else {
        text.trim()
    };
    let mut told = Refused::of(status, reason).into_response();
    if let Some(methods) = parts.headers.get(header::ALLOW) {
        told.headers_mut().insert(header::ALLOW, methods.clone());
    }
    told
}

/// Keeps answers out of caches, which would give them to clients without a token.
pub(super) async fn uncached(mut response: Response) -> Response {
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, never);
    response
}

/// Answers requests for what the interface does not have.
pub(super) async fn nothing(uri: Uri) -> Refused {
    let hint = "`/openapi.json` lists what is there.";
    Refused::missing(format!("There is no {}.", uri.path())).hint(hint)
}
