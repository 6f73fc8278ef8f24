//! Refusals, and the check of rights before each request.

use super::interface::Interface;
use crate::{
    access::{Caller, Denied, Request, Role},
    view::Refusal,
};
use axum::{
    Json,
    extract::{Request as HttpRequest, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use push0_bus::BusError;
use push0_operate::OperateError;

/// A request that is not answered as asked.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    body: Refusal,
}

impl Refused {
    fn new(status: StatusCode, error: impl Into<String>, hint: Option<&str>) -> Self {
        Self {
            status,
            body: Refusal {
                error: error.into(),
                hint: hint.map(str::to_owned),
            },
        }
    }

    pub(super) fn malformed(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, None)
    }

    pub(super) fn missing(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, None)
    }

    pub(super) fn conflict(error: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, error, None)
    }

    pub(super) fn away(error: impl Into<String>) -> Self {
        let hint = "The broker or one of its streams is away. Try again when it is back.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error, Some(hint))
    }
}

impl From<BusError> for Refused {
    fn from(error: BusError) -> Self {
        Self::away(error.to_string())
    }
}

impl From<OperateError> for Refused {
    fn from(error: OperateError) -> Self {
        match error {
            OperateError::NoLetter(_) | OperateError::NoLetters => Self::missing(error.to_string()),
            error => Self::away(error.to_string()),
        }
    }
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        let token = Some("Give a token of gateway.tokens_file as `Authorization: Bearer TOKEN`.");
        match denied {
            Denied::NoToken => Self::new(StatusCode::UNAUTHORIZED, "A token is needed.", token),
            Denied::WrongToken => Self::new(StatusCode::UNAUTHORIZED, "The token is not known here.", token),
            Denied::WrongRole => Self::new(
                StatusCode::FORBIDDEN,
                "The token's role may not do this.",
                Some("Use a token with the role `operate`."),
            ),
            Denied::Foreign => Self::new(
                StatusCode::FORBIDDEN,
                "The request came through another site or name.",
                Some("Open the gateway under its own address."),
            ),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

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
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    Request {
        authorization: text(header::AUTHORIZATION),
        host: text(header::HOST),
        origin: text(header::ORIGIN),
    }
}
