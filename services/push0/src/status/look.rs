//! Reads the state of a deployment.

use super::judge::{Facts, judge};
use super::model::{HeldStatus, PipelineStatus, Problem, Status};
use super::{pipelines, provers, roles, services, streams};
use crate::context::Context;
use crate::failure::Failure;
use crate::unverified;
use push0_bus::{Bus, Introduced, now};
use push0_domain::ZkvmId;
use push0_domain::message::HeldQueue;
use push0_operate::{holds, letters};
use std::collections::BTreeMap;
use std::time::Duration;

/// Time limit for reading pipelines, provers and dead letters: the operator gets an answer even if brokers
/// are away.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long services have to say who they are.
const SERVICES_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Collects the state and judges it. A part that cannot be read becomes a problem, and the rest is still shown.
pub(crate) async fn look(context: &Context, bus: &Bus) -> Status {
    let mut problems = Vec::new();
    let (streams, introduced) =
        tokio::join!(streams::read(bus, &mut problems), bus.services(SERVICES_TIMEOUT));
    let introduced = read("services", introduced.map_err(Failure::from), &mut problems);
    let rest = async {
        tokio::join!(
            pipelines::read(bus),
            provers::read(bus),
            held(bus),
            letters::list(bus, None)
        )
    };
    let (pipelines, provers, held, letters) = match tokio::time::timeout(LOOK_TIMEOUT, rest).await {
        Ok((pipelines, provers, held, letters)) => (
            pipelines::split(read("pipelines", pipelines, &mut problems), &mut problems),
            read("provers", provers, &mut problems),
            read("held queues", held, &mut problems),
            read("dead letters", letters.map_err(Failure::from), &mut problems),
        ),
        Err(_) => {
            problems.push(silent("pipelines, provers and dead letters"));
            (Vec::new(), Vec::new(), Vec::new(), Vec::new())
        }
    };
    // Ages of leases count from here: processes that do not answer take seconds from now on.
    let read_at = now();
    let pipelines = with_heads(pipelines, &introduced);
    let roles = roles::read(bus, &pipelines, &introduced);
    let roles = match tokio::time::timeout(LOOK_TIMEOUT, roles).await {
        Ok(roles) => read("leaders", roles, &mut problems),
        Err(_) => {
            problems.push(silent("leaders"));
            Vec::new()
        }
    };
    let services = services::all(context, &introduced).await;
    let facts = Facts {
        roles: &roles,
        services: &services,
        pipelines: &pipelines,
        provers: &provers,
        held: &held,
    };
    problems.extend(judge(&facts, read_at));
    match tokio::time::timeout(LOOK_TIMEOUT, unverified::sentences(bus)).await {
        Ok(sentences) => {
            let sentences = read("checks without a verdict", sentences, &mut problems);
            problems.extend(sentences.into_iter().map(Problem::new));
        }
        Err(_) => problems.push(silent("checks without a verdict")),
    }
    Status {
        at: now(),
        ok: problems.is_empty(),
        problems,
        roles,
        services,
        streams,
        pipelines,
        provers,
        held,
        dead_letters: letters.len(),
    }
}

/// Adds the heads of chains, as the leading ingesters tell them.
fn with_heads(pipelines: Vec<PipelineStatus>, services: &[Introduced]) -> Vec<PipelineStatus> {
    let heads: BTreeMap<_, _> = services.iter().flat_map(|service| &service.heads).collect();
    let of = |pipeline: PipelineStatus| {
        let head = heads.get(&pipeline.name).map(|head| **head);
        pipeline.with_head(head)
    };
    pipelines.into_iter().map(of).collect()
}

fn silent(what: &str) -> Problem {
    Problem::new(format!("{what}: no answer from the broker"))
}

fn read<T>(what: &str, read: Result<Vec<T>, Failure>, problems: &mut Vec<Problem>) -> Vec<T> {
    read.unwrap_or_else(|failure| {
        problems.push(Problem::new(format!("{what}: {}", failure.text())));
        Vec::new()
    })
}

async fn held(bus: &Bus) -> Result<Vec<HeldStatus>, Failure> {
    let (held, unreadable) = holds::list(bus).await?;
    if let Some(unreadable) = unreadable.first() {
        let reason = format!(
            "{}: {}; `push0 repair` mends it",
            unreadable.name, unreadable.reason
        );
        return Err(Failure::failed(reason));
    }
    let status = |(zkvm, queue): (ZkvmId, HeldQueue)| HeldStatus { zkvm, queue };
    Ok(held.into_iter().map(status).collect())
}
