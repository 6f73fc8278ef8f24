//! Answers to questions.

use super::{interface::Interface, pieces, refused::Refused};
use crate::{access::Caller, history, model::Model, view};
use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use futures::{Stream, stream};
use push0_bus::{BlobError, PayloadParts, Stream as BusStream, now};
use push0_domain::{
    BlockRef, PipelineId,
    message::{Emission, EmissionOutcome, Proof},
    pipeline::Pipeline,
    subject,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

/// Most blocks in one answer.
const BLOCKS_MAX: usize = 500;
/// Most revisions of a definition in one answer, and how many bytes they may have.
const REVISIONS_MAX: usize = 100;
const REVISIONS_BYTES_MAX: usize = 1 << 20;

/// Returns the rights of the caller.
#[utoipa::path(get, path = "/api/v1/session", responses((status = 200, body = view::Session)))]
pub(super) async fn session(
    State(interface): State<Interface>,
    Extension(caller): Extension<Caller>,
) -> Json<view::Session> {
    Json(view::Session {
        role: caller.role.as_str(),
        auth: !interface.tokens.is_empty(),
        version: env!("CARGO_PKG_VERSION"),
        jaeger_url: (!interface.jaeger_url.is_empty()).then(|| interface.jaeger_url.to_string()),
    })
}

/// Returns the whole state.
#[utoipa::path(get, path = "/api/v1/snapshot", responses((status = 200, body = view::Snapshot)))]
pub(super) async fn snapshot(State(interface): State<Interface>) -> Result<Response, Refused> {
    let json = interface.shared.snapshot(now())?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// Returns a pipeline with its definition.
#[utoipa::path(get, path = "/api/v1/pipelines/{pipeline}", responses((status = 200, body = view::PipelineDetail)))]
pub(super) async fn pipeline(
    State(interface): State<Interface>,
    Path(name): Path<String>,
) -> Result<Json<view::PipelineDetail>, Refused> {
    let name = pipeline_id(&name)?;
    let found = interface.shared.with(|model| model.pipeline(&name, now()));
    let (definition, pipeline) =
        found.ok_or_else(|| Refused::missing(format!("There is no pipeline {name}.")))?;
    let pipelines = push0_bus::Pipelines::bind(&interface.bus).await?;
    let (mut revisions, mut bytes) = (Vec::new(), 0);
    for revision in (1..=definition.revision).rev().take(REVISIONS_MAX) {
        if let Some(older) = pipelines.revision(&name, revision).await? {
            let definition = text_of(&older);
            bytes += definition.len();
            if bytes > REVISIONS_BYTES_MAX {
                break;
            }
            revisions.push(view::Revision { revision, definition });
        }
    }
    Ok(Json(view::PipelineDetail {
        pipeline,
        definition: text_of(&definition),
        graph: graph(&definition),
        revisions,
    }))
}

/// Returns a definition as JSON text. The URLs of a node may hold a password or a key, so they are left out.
fn text_of(pipeline: &Pipeline) -> String {
    let mut value = serde_json::to_value(pipeline).unwrap_or_default();
    hide_urls(&mut value);
    serde_json::to_string_pretty(&value).unwrap_or_default()
}

fn hide_urls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if name == "rpc_urls" {
                    *field = json!("hidden");
                } else {
                    hide_urls(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_urls),
        _ => {}
    }
}

fn graph(pipeline: &Pipeline) -> view::Graph {
    let mut graph = view::Graph::default();
    for proof in &pipeline.proofs {
        let id = |stage: &push0_domain::pipeline::Stage| format!("{}.{}", proof.proof_type, stage.name);
        graph.nodes.extend(proof.stages.iter().map(|stage| view::Node {
            id: id(stage),
            proof: proof.proof_type.to_string(),
            stage: stage.name.to_string(),
            zkvm: stage.zkvm.to_string(),
            kind: Model::kind_of(stage),
            arity: stage.arity,
        }));
        graph.edges.extend(proof.stages.windows(2).map(|pair| view::Edge {
            from: id(&pair[0]),
            to: id(&pair[1]),
        }));
    }
    graph
}

#[derive(Debug, Deserialize)]
pub(super) struct Older {
    before: Option<u64>,
    limit: Option<usize>,
}

/// Returns blocks of a pipeline below a number, newest first.
#[utoipa::path(
    get, path = "/api/v1/pipelines/{pipeline}/blocks",
    params(("before" = Option<u64>, Query), ("limit" = Option<usize>, Query)),
    responses((status = 200, description = "`{\"blocks\": [Block]}`"))
)]
pub(super) async fn blocks(
    State(interface): State<Interface>,
    Path(name): Path<String>,
    Query(older): Query<Older>,
) -> Result<Json<Value>, Refused> {
    let name = pipeline_id(&name)?;
    let before = older.before.unwrap_or(u64::MAX);
    let next = next_of(&interface, &name);
    let (mut blocks, limit) = interface.shared.with(|model| {
        let limit = older.limit.unwrap_or(100).min(BLOCKS_MAX).min(model.shown_max());
        (model.blocks_of(&name, before, limit, now()), limit)
    });
    let lowest = blocks.last().map_or(before, |block| block.number);
    let wanted = (limit - blocks.len()) as u64;
    if wanted > 0 && lowest != u64::MAX {
        let numbers = lowest.saturating_sub(wanted)..lowest;
        let model = history::read(&interface.bus, &name, numbers, next).await?;
        blocks.extend(model.blocks_of(&name, lowest, limit - blocks.len(), now()));
    }
    Ok(Json(json!({ "blocks": blocks })))
}

/// Returns a block with its story.
#[utoipa::path(
    get, path = "/api/v1/pipelines/{pipeline}/blocks/{block}",
    params(("block" = String, Path, description = "The number, or the hash or its beginning")),
    responses((status = 200, body = view::BlockDetail))
)]
pub(super) async fn block(
    State(interface): State<Interface>,
    Path((name, block)): Path<(String, String)>,
) -> Result<Json<view::BlockDetail>, Refused> {
    let name = pipeline_id(&name)?;
    let mut detail = detail(&interface, &name, &block).await?;
    let last = detail.block.range.map_or(detail.block.number, |range| range.last);
    let letters = interface.letters.of_block(
        &interface.bus,
        interface.made_at(),
        &name,
        last,
        detail.block.state == "dead",
    );
    detail.letters = letters.await?;
    detail.trace_url = detail
        .trace_id
        .as_ref()
        .filter(|_| !interface.jaeger_url.is_empty())
        .map(|trace| format!("{}/trace/{trace}", interface.jaeger_url));
    Ok(Json(detail))
}

/// Returns the number that a pipeline emits next.
fn next_of(interface: &Interface, name: &PipelineId) -> Option<u64> {
    let found = interface.shared.with(|model| model.pipeline(name, now()));
    found.and_then(|(_, pipeline)| pipeline.next)
}

async fn detail(interface: &Interface, name: &PipelineId, asked: &str) -> Result<view::BlockDetail, Refused> {
    let (number, hash) = match asked.parse::<u64>() {
        Ok(number) => (Some(number), None),
        Err(_) if asked.starts_with("0x") => (None, Some(asked)),
        Err(_) => {
            return Err(Refused::malformed(format!(
                "`{asked}` is no block: expected a number or 0x and hex digits."
            )));
        }
    };
    let look = |model: &Model| {
        let block = model.find(name, number, hash)?;
        model.detail(name, &block, now())
    };
    if let Some(detail) = interface.shared.with(|model| look(model)) {
        return Ok(detail);
    }
    let missing = || {
        Refused::missing(format!(
            "Pipeline {name} has no block {asked} that the gateway can read."
        ))
    };
    let number = number.ok_or_else(missing)?;
    let next = next_of(interface, name);
    let model = history::one(&interface.bus, name, number, next).await?;
    look(&model).ok_or_else(missing)
}

/// Returns the bytes of a proof.
#[utoipa::path(
    get, path = "/api/v1/pipelines/{pipeline}/blocks/{block}/proofs/{proof}",
    responses((status = 200, content_type = "application/octet-stream", description = "The bytes of the proof"))
)]
pub(super) async fn proof(
    State(interface): State<Interface>,
    Path((name, number, kind)): Path<(String, u64, String)>,
) -> Result<Response, Refused> {
    let name = pipeline_id(&name)?;
    let permit = interface.limits.download()?;
    let proof = proof_of(&interface, &name, number, &kind).await?;
    let parts = interface.bus.blobs().parts(&proof.payload).await;
    let parts = parts.map_err(|error| Refused::away(error.to_string()))?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, parts.len().to_string()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}-{number}-{kind}.proof\""),
        ),
    ];
    Ok((headers, Body::from_stream(download(parts, permit))).into_response())
}

/// Returns the bytes of a proof as the client takes them: one part of it is in memory. An error, as of a wrong hash, ends
/// the connection before the client has the last part.
fn download(
    parts: PayloadParts,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, BlobError>> {
    stream::try_unfold(
        (Bytes::new(), parts, permit),
        async |(mut part, mut parts, permit)| {
            if part.is_empty() {
                part = parts.next().await?.unwrap_or_default();
            }
            Ok(pieces::next(&mut part).map(|piece| (piece, (part, parts, permit))))
        },
    )
}

async fn proof_of(
    interface: &Interface,
    name: &PipelineId,
    number: u64,
    kind: &str,
) -> Result<Proof, Refused> {
    let missing = || {
        Refused::missing(format!(
            "Block {number} of pipeline {name} has no proof `{kind}`."
        ))
    };
    // A range has the number of its last block.
    let block: Option<BlockRef> = interface
        .shared
        .with(|model| model.find(name, Some(number), None));
    let detail = block.and_then(|block| interface.shared.with(|model| model.detail(name, &block, now())));
    let last = detail
        .and_then(|detail| detail.block.range)
        .map_or(number, |range| range.last);
    if let Some(next) = next_of(interface, name).filter(|next| last >= *next) {
        return Err(Refused::missing(format!(
            "Block {number} of pipeline {name} has no proof that counts: the output goes on at block {next}."
        )));
    }
    let kept = interface
        .bus
        .last::<Emission>(BusStream::Proofs, &subject::proof(name, last))
        .await?;
    let record = kept.and_then(|kept| kept.body.ok()).ok_or_else(missing)?;
    let EmissionOutcome::Proved(proofs) = record.outcome else {
        return Err(missing());
    };
    let found = proofs.into_iter().find(|proof| proof.proof_type.as_str() == kind);
    found.ok_or_else(missing)
}

/// Returns the newest dead letters, newest first, and how many there are.
#[utoipa::path(
    get, path = "/api/v1/dead-letters",
    responses((status = 200, description = "`{\"letters\": [Letter], \"total\": number}`, at most 200 letters"))
)]
pub(super) async fn letters(State(interface): State<Interface>) -> Result<Json<Value>, Refused> {
    let listed = interface
        .letters
        .list(&interface.bus, interface.made_at())
        .await?;
    Ok(Json(json!({ "letters": listed.letters, "total": listed.total })))
}

/// Parses the name of a pipeline.
pub(super) fn pipeline_id(text: &str) -> Result<PipelineId, Refused> {
    text.parse()
        .map_err(|error| Refused::malformed(format!("`{text}` is no pipeline: {error}")))
}
