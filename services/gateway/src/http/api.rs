//! The description of the interface, for generators of clients.

use crate::view;
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

/// Returns the OpenAPI document.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
