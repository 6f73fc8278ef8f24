//! What operators do: cancel blocks, retry dead letters. Each is logged with the caller's name.

use super::{interface::Interface, read::pipeline_id, refused::Refused};
use crate::{access::Caller, view};
use axum::{
    Extension, Json,
    extract::{Path, State, rejection::JsonRejection},
};
use push0_bus::{Message, Pipelines};
use push0_domain::{
    message::{BlockEvent, Cancel, EndReason, clip},
    subject,
    trace::TraceContext,
};
use push0_operate::{
    cancel,
    letters::{self, Which},
    retry,
};

/// Cancels blocks.
#[utoipa::path(
    post, path = "/api/v1/pipelines/{pipeline}/cancel", request_body = view::CancelRequest,
    responses((status = 200, body = view::Done))
)]
pub(super) async fn cancel(
    State(interface): State<Interface>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Result<Json<view::CancelRequest>, JsonRejection>,
) -> Result<Json<view::Done>, Refused> {
    let name = pipeline_id(&name)?;
    let Json(request) = request.map_err(|error| Refused::malformed(error.body_text()))?;
    let view::CancelRequest { first, last, note } = request;
    if first > last || note.trim().is_empty() {
        return Err(Refused::malformed(
            "Expected `first` at most `last`, and a note that says why.",
        ));
    }
    let found = interface
        .shared
        .with(|model| model.pipeline(&name, push0_bus::now()));
    let Some((_, pipeline)) = found else {
        return Err(Refused::missing(format!("There is no pipeline {name}.")));
    };
    let event = BlockEvent::Cancelled(Cancel {
        pipeline: name.clone(),
        first,
        last,
        hashes: Vec::new(),
        reason: EndReason::Cancelled { note: clip(&note) },
    });
    let message = Message::new(subject::cancel(&name), &event, &TraceContext::default());
    let message = message.map_err(|error| Refused::malformed(error.to_string()))?;
    let stored = interface.bus.publish(message).await;
    stored.map_err(|error| Refused::away(error.to_string()))?;
    tracing::info!(caller = caller.name, pipeline = %name, first, last, note, "blocks are cancelled");
    let effect = cancel::effect(first..=last, pipeline.next, pipeline.head);
    let named = if first == last {
        format!("block {first}")
    } else {
        format!("blocks {first} to {last}")
    };
    Ok(Json(view::Done {
        done: format!("The cancellation of {named} of {name} is stored{effect}."),
    }))
}

/// Retries the block of a dead letter.
#[utoipa::path(
    post, path = "/api/v1/dead-letters/{id}/retry",
    responses((status = 200, body = view::Done), (status = 409, body = view::Refusal))
)]
pub(super) async fn retry_letter(
    State(interface): State<Interface>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<view::Done>, Refused> {
    let bus = &interface.bus;
    let chosen = letters::find(bus, &Which::One(id.clone())).await?;
    let (chosen, _) = retry::read(bus, chosen).await?;
    let Some(block) = chosen.into_keys().next() else {
        return Err(Refused::conflict(
            "The letter is about a message, which no retry can help.",
        ));
    };
    // All letters of the block belong to one retry.
    let tasks = retry::tasks_of(bus, &block).await?;
    let pipelines = Pipelines::bind(bus).await?;
    let asked = retry::retry(bus, &pipelines, &block, &tasks).await?;
    let asked = asked.map_err(Refused::conflict)?;
    let (pipeline, number) = (&block.pipeline, block.last.number);
    tracing::info!(caller = caller.name, %pipeline, block.number = number, dead_letter.id = id, %asked, "a dead block is retried");
    Ok(Json(view::Done {
        done: format!("Block {number} of {pipeline}: {asked}."),
    }))
}
