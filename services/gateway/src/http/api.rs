//! The description of the interface, for generators of clients.

use crate::view;
use axum::{
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
};
use std::sync::LazyLock;
use utoipa::{
    Modify, OpenApi,
    openapi::{self, ContentBuilder, Ref, ResponseBuilder},
};

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
    modifiers(&Refusals),
    components(schemas(view::Change, view::Block, view::Letter, view::Refusal))
)]
struct Document;

/// Adds the answers to requests that are refused.
struct Refusals;

impl Modify for Refusals {
    fn modify(&self, document: &mut openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            let has_parameter = path.contains('{');
            let statuses = [
                ("400", "The request is malformed", has_parameter),
                ("401", "A token is missing or not known", true),
                (
                    "403",
                    "The role may not do this, or the request came through another site",
                    true,
                ),
                ("404", "There is no such thing", has_parameter),
                ("503", "The broker is away, or too much is under way", true),
            ];
            for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
                for (status, text, _) in statuses.iter().filter(|(_, _, is_possible)| *is_possible) {
                    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Refusal")));
                    let refusal = ResponseBuilder::new()
                        .description(*text)
                        .content("application/json", body.build());
                    let responses = &mut operation.responses.responses;
                    responses
                        .entry((*status).to_owned())
                        .or_insert_with(|| refusal.build().into());
                }
            }
        }
    }
}

/// Answers with the OpenAPI document, which is encoded once: anybody may ask for it.
pub(super) async fn document() -> Response {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| Document::openapi().to_json().unwrap_or_default().into());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone()).into_response()
}
