//! The description of the interface, for generators of clients.

use crate::view;
use axum::{
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
};
use std::sync::LazyLock;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "push0 gateway",
        description = "State of a push0 deployment: blocks, provers, pipelines."
    ),
    paths(
        super::read::session,
        super::read::snapshot,
        super::events::follow,
        super::read::pipeline,
        super::read::blocks,
        super::read::block,
        super::read::proof,
        super::read::letters,
        super::actions::retry_letter,
        super::actions::cancel,
    ),
    components(schemas(view::Change, view::Block, view::Letter, view::Refusal))
)]
struct Document;

/// Answers with the OpenAPI document, which is encoded once: anybody may ask for it.
pub(super) async fn document() -> Response {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| Document::openapi().to_json().unwrap_or_default().into());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone()).into_response()
}
