//! Requests that are not answered as asked.

use crate::{access::Denied, shared::NoSnapshot, view::Refusal};
use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use push0_bus::BusError;
use push0_operate::OperateError;

/// After how many seconds a client should try again that met too many others.
const BUSY_FOR: u8 = 5;

/// A request that is not answered as asked.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    body: Refusal,
    /// After how many seconds the same request may succeed, if that is soon.
    retry_after: Option<u8>,
}

impl Refused {
    fn new(status: StatusCode, error: impl Into<String>, hint: Option<&str>) -> Self {
        Self {
            status,
            body: Refusal {
                error: error.into(),
                hint: hint.map(str::to_owned),
            },
            retry_after: None,
        }
    }

    /// Refuses a request for a reason that its status tells.
    pub(super) fn of(status: StatusCode, error: &str) -> Self {
        Self::new(status, error, None)
    }

    /// Refuses a request because too many others are under way.
    pub(super) fn busy(error: impl Into<String>) -> Self {
        Self {
            retry_after: Some(BUSY_FOR),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                error,
                Some("Try again in some seconds."),
            )
        }
    }

    /// Says what to do.
    pub(super) fn hint(mut self, hint: &str) -> Self {
        self.body.hint = Some(hint.to_owned());
        self
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

impl From<NoSnapshot> for Refused {
    fn from(error: NoSnapshot) -> Self {
        match error {
            NoSnapshot::Busy => Self::busy(error.to_string()),
            NoSnapshot::Unencodable(_) => Self::away(error.to_string()),
        }
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
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, u16::from(seconds).into());
        }
        response
    }
}
