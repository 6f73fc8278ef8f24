//! `push0 status`: shows the state of the deployment.

use crate::context::Context;
use crate::failure::Failure;
use crate::table::{self, Align, NONE};
use crate::{graph, output, probe, records, room, unverified};
use clap::Args;
use push0_bus::{Bucket, Bus, BusError, Level, Pipelines, Standing, Stream, now};
use push0_domain::message::{HeldQueue, Lease, ProverState, Role};
use push0_domain::pipeline::{Pipeline, Position};
use push0_domain::{ProverId, Timestamp, ZkvmId, subject};
use push0_operate::{holds, letters};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// Silence after which the watchdog reassigns a prover's work: three heartbeats.
const LOST_AFTER: Duration = Duration::from_millis(750);

/// Time limit for the broker to confirm that the streams exist.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for reading pipelines, provers and dead letters: the operator gets an answer even if brokers
/// are away.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Repeat at this interval until Ctrl-C, such as `1m`.
    #[arg(long, value_name = "TIME", value_parser = every)]
    every: Option<humantime::Duration>,
}

fn every(text: &str) -> Result<humantime::Duration, String> {
    let every: humantime::Duration = text.parse().map_err(|e| format!("{e}"))?;
    if *every < Duration::from_secs(1) {
        return Err("expected at least 1s".into());
    }
    Ok(every)
}

#[derive(Debug, Serialize)]
struct Status {
    /// Conditions that need an operator's attention; empty if there are none.
    problems: Vec<String>,
    services: Vec<ServiceStatus>,
    streams: Vec<StreamStatus>,
    pipelines: Vec<PipelineStatus>,
    provers: Vec<ProverStatus>,
    /// Queues whose attempts fail without a success between them.
    held: Vec<HeldStatus>,
    dead_letters: usize,
}

#[derive(Debug, Serialize)]
struct HeldStatus {
    zkvm: ZkvmId,
    since: Timestamp,
    failures: u32,
    error: String,
}

#[derive(Debug, Serialize)]
struct ServiceStatus {
    name: String,
    ready: bool,
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct StreamStatus {
    name: String,
    messages: u64,
    bytes: u64,
    bytes_max: u64,
    /// Broker whose copy leads; `None` if no copy leads. A single broker leads its only copy.
    leader: Option<String>,
    copies: usize,
    /// Number of copies that are present and complete.
    copies_current: usize,
}

#[derive(Debug, Serialize)]
struct PipelineStatus {
    name: String,
    revision: u32,
    policy: String,
    /// Number of the last block published by the ingester.
    ingested: Option<u64>,
    /// Number of the next block to emit, according to the newest record.
    next: Option<u64>,
    /// Number of ingested blocks without a record; `None` before the first record.
    lag: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ProverStatus {
    id: ProverId,
    zkvm: ZkvmId,
    role: Role,
    slots: u32,
    held: usize,
    state: ProverState,
    heard_ms_ago: u64,
    lost: bool,
}

pub(crate) async fn run(context: &Context, args: &StatusArgs) -> Result<(), Failure> {
    let bus = context.broker().await?;
    // Only missing streams end the command here. Silent brokers are a problem for the
    // status itself to report.
    if let Ok(Err(missing @ BusError::Missing { .. })) =
        tokio::time::timeout(ANSWER_TIMEOUT, bus.check_provisioned()).await
    {
        return Err(missing.into());
    }
    let Some(every) = args.every else {
        let status = look(context, &bus).await;
        show(context, &status)?;
        let is_well = status.problems.is_empty();
        return if is_well { Ok(()) } else { Err(Failure::Told) };
    };
    let mut terminated = signal(SignalKind::terminate())?;
    let mut next = tokio::time::interval(*every);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            _ = terminated.recv() => return Ok(()),
            _ = next.tick() => show(context, &look(context, &bus).await)?,
        }
    }
}

fn show(context: &Context, status: &Status) -> Result<(), Failure> {
    if context.json {
        output::json(status)
    } else {
        output::line(&render(status))
    }
}

/// Collects the status. A part that cannot be read becomes a problem, and the rest is still shown.
async fn look(context: &Context, bus: &Bus) -> Status {
    let mut problems = Vec::new();
    let streams = streams(bus, &mut problems).await;
    let rest = async { tokio::join!(pipelines(bus), provers(bus), held(bus), letters::list(bus, None)) };
    let (pipelines, provers, held, letters) = match tokio::time::timeout(LOOK_TIMEOUT, rest).await {
        Ok((pipelines, provers, held, letters)) => (
            split(read("pipelines", pipelines, &mut problems), &mut problems),
            read("provers", provers, &mut problems),
            read("held queues", held, &mut problems),
            read("dead letters", letters.map_err(Failure::from), &mut problems),
        ),
        Err(_) => {
            problems.push("pipelines, provers and dead letters: no answer from the broker".into());
            (Vec::new(), Vec::new(), Vec::new(), Vec::new())
        }
    };
    problems.extend(held.iter().map(trouble_of));
    match tokio::time::timeout(LOOK_TIMEOUT, unverified::sentences(bus)).await {
        Ok(sentences) => {
            let sentences = read("checks without a verdict", sentences, &mut problems);
            problems.extend(sentences);
        }
        Err(_) => problems.push("checks without a verdict: no answer from the broker".into()),
    }
    Status {
        problems,
        services: services(context).await,
        streams,
        pipelines,
        provers,
        held,
        dead_letters: letters.len(),
    }
}

/// Returns the pipelines, and adds what is unreadable to the problems.
fn split(found: Vec<Result<PipelineStatus, String>>, problems: &mut Vec<String>) -> Vec<PipelineStatus> {
    let mut readable = Vec::new();
    for pipeline in found {
        match pipeline {
            Ok(pipeline) => readable.push(pipeline),
            Err(unreadable) => problems.push(format!("{unreadable}; `push0 repair` mends it")),
        }
    }
    readable
}

fn read<T>(what: &str, read: Result<Vec<T>, Failure>, problems: &mut Vec<String>) -> Vec<T> {
    read.unwrap_or_else(|failure| {
        problems.push(format!("{what}: {}", failure.text()));
        Vec::new()
    })
}

async fn streams(bus: &Bus, problems: &mut Vec<String>) -> Vec<StreamStatus> {
    let mut streams = Vec::new();
    // The same trouble of several streams is reported as one problem.
    let mut troubles = BTreeMap::<String, Vec<String>>::new();
    let mut levels = Vec::new();
    for (name, standing) in bus.standings().await {
        match standing {
            Ok(standing) => {
                if let Some(trouble) = standing.trouble() {
                    troubles.entry(trouble.to_string()).or_default().push(name);
                }
                levels.push((standing.stream.clone(), standing.level));
                streams.push(stream_status(standing));
            }
            Err(error) => {
                let trouble = format!("no answer about its copies ({})", Failure::from(error).text());
                troubles.entry(trouble).or_default().push(name);
            }
        }
    }
    let told = troubles
        .iter()
        .map(|(trouble, names)| format!("{}: {trouble}", names.join(", ")));
    problems.extend(told);
    let levels: Vec<(&str, Level)> = levels
        .iter()
        .map(|(name, level)| (name.as_str(), *level))
        .collect();
    problems.extend(room::waits(&levels));
    streams
}

fn stream_status(standing: Standing) -> StreamStatus {
    StreamStatus {
        messages: standing.level.messages,
        bytes: standing.level.bytes,
        bytes_max: standing.level.bytes_max,
        copies: standing.copies.len().max(1),
        copies_current: match &standing.copies[..] {
            [] => 1,
            copies => copies.iter().filter(|copy| copy.is_complete()).count(),
        },
        name: standing.stream,
        leader: standing.leader,
    }
}

/// Returns the state of each pipeline, and what of it cannot be read.
async fn pipelines(bus: &Bus) -> Result<Vec<Result<PipelineStatus, String>>, Failure> {
    let mut pipelines = Vec::new();
    let defined = Pipelines::bind(bus).await?;
    let (current, unreadable) = defined.all().await?;
    pipelines.extend(unreadable.into_iter().map(|(_, reason)| Err(reason)));
    for pipeline in current {
        match bus.output(&pipeline.name).await {
            Err(error @ BusError::Corrupt { .. }) => pipelines.push(Err(error.to_string())),
            read => drop(read?),
        }
        pipelines.push(Ok(status_of(bus, &pipeline).await?));
        let cursors = bus.facts::<Position>(Bucket::State).await?;
        let key = Position::key(&pipeline.name);
        if let Err(error @ BusError::Corrupt { .. }) = cursors.get(&key).await {
            pipelines.push(Err(error.to_string()));
        }
    }
    for name in defined.removed().await? {
        let in_flight = match bus.in_flight(&name).await {
            Err(error @ BusError::Corrupt { .. }) => {
                pipelines.push(Err(error.to_string()));
                continue;
            }
            in_flight => in_flight?,
        };
        let Some(pipeline) = defined.newest_of(&name).await?.filter(|_| in_flight > 0) else {
            continue;
        };
        pipelines.push(Ok(PipelineStatus {
            policy: format!("removed, {in_flight} in flight"),
            ..status_of(bus, &pipeline).await?
        }));
    }
    Ok(pipelines)
}

async fn services(context: &Context) -> Vec<ServiceStatus> {
    let mut services = Vec::new();
    for service in context
        .endpoint()
        .map_or(Vec::new(), |endpoint| endpoint.services)
    {
        let reason = probe::ready(service.address).await.err();
        services.push(ServiceStatus {
            name: service.name,
            ready: reason.is_none(),
            reason,
        });
    }
    services
}

async fn status_of(bus: &Bus, pipeline: &Pipeline) -> Result<PipelineStatus, Failure> {
    let newest = records::newest(bus, &pipeline.name).await?;
    let next = newest.map(|record| record.emission.next);
    let cursor = bus.facts::<Position>(Bucket::State).await?;
    let cursor = cursor.look(&Position::key(&pipeline.name)).await?;
    let ingested = cursor
        .and_then(Result::ok)
        .and_then(|fact| fact.value)
        .and_then(|cursor| cursor.block)
        .map(|block| block.number);
    Ok(PipelineStatus {
        name: pipeline.name.to_string(),
        revision: pipeline.revision,
        policy: graph::policy(pipeline),
        ingested,
        next,
        lag: lag(ingested, next),
    })
}

fn lag(ingested: Option<u64>, next: Option<u64>) -> Option<u64> {
    Some((ingested? + 1).saturating_sub(next?))
}

async fn provers(bus: &Bus) -> Result<Vec<ProverStatus>, Failure> {
    let mut provers = Vec::new();
    for (subject, _) in bus
        .subjects(Stream::Leases, &subject::all(subject::Kind::Lease))
        .await?
    {
        // The lease may have expired in the meantime.
        let Some(kept) = bus.last::<Lease>(Stream::Leases, &subject).await? else {
            continue;
        };
        let Ok(lease) = kept.body else { continue };
        let silent = now().since(kept.stored_at);
        provers.push(ProverStatus {
            id: lease.prover,
            zkvm: lease.zkvm,
            role: lease.role,
            slots: lease.slots,
            held: lease.held.len(),
            state: lease.state,
            heard_ms_ago: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
            lost: silent > LOST_AFTER,
        });
    }
    provers.sort_by(|a, b| (&a.zkvm, &a.id).cmp(&(&b.zkvm, &b.id)));
    Ok(provers)
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
    let status = |(zkvm, queue): (ZkvmId, HeldQueue)| HeldStatus {
        zkvm,
        since: queue.since,
        failures: queue.failures,
        error: queue.error,
    };
    Ok(held.into_iter().map(status).collect())
}

fn trouble_of(held: &HeldStatus) -> String {
    format!(
        "the queue of zkVM {} has been held for {}: no attempt has succeeded in that time. One task at a time is tried. \
         Last error: {}",
        held.zkvm,
        table::span(now().since(held.since)),
        held.error.lines().next().unwrap_or_default()
    )
}

fn render(status: &Status) -> String {
    let mut parts = Vec::new();
    if !status.problems.is_empty() {
        parts.push(format!("NOT OK\n  {}", status.problems.join("\n  ")));
    }
    if !status.services.is_empty() {
        let rows: Vec<_> = status.services.iter().map(service_row).collect();
        parts.push(table::render(
            &[("service", Align::Left), ("state", Align::Left)],
            &rows,
        ));
    }
    let columns = [
        ("stream", Align::Left),
        ("messages", Align::Right),
        ("bytes", Align::Right),
        ("of limit", Align::Right),
        ("copies", Align::Right),
        ("leader", Align::Left),
    ];
    parts.push(table::render(
        &columns,
        &status.streams.iter().map(stream_row).collect::<Vec<_>>(),
    ));
    let columns = [
        ("pipeline", Align::Left),
        ("revision", Align::Right),
        ("policy", Align::Left),
        ("ingested", Align::Right),
        ("next to emit", Align::Right),
        ("lag", Align::Right),
    ];
    parts.push(or_none(
        "pipelines",
        &columns,
        status.pipelines.iter().map(pipeline_row).collect(),
    ));
    let columns = [
        ("prover", Align::Left),
        ("zkvm", Align::Left),
        ("role", Align::Left),
        ("slots", Align::Right),
        ("held", Align::Right),
        ("state", Align::Left),
        ("heard", Align::Right),
    ];
    parts.push(or_none(
        "provers",
        &columns,
        status.provers.iter().map(prover_row).collect(),
    ));
    parts.push(format!("dead letters: {}", status.dead_letters));
    parts.join("\n\n")
}

fn or_none(what: &str, columns: &[(&str, Align)], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        format!("{what}: none")
    } else {
        table::render(columns, &rows)
    }
}

fn service_row(service: &ServiceStatus) -> Vec<String> {
    let reason = service
        .reason
        .as_ref()
        .map(|reason| format!("not ready: {reason}"));
    vec![service.name.clone(), reason.unwrap_or("ready".into())]
}

fn stream_row(stream: &StreamStatus) -> Vec<String> {
    let percent = (stream.bytes * 100).checked_div(stream.bytes_max);
    vec![
        stream.name.clone(),
        stream.messages.to_string(),
        table::bytes(stream.bytes),
        percent.map_or(NONE.into(), |percent| format!("{percent}%")),
        format!("{} of {}", stream.copies_current, stream.copies),
        stream.leader.clone().unwrap_or(NONE.into()),
    ]
}

fn pipeline_row(pipeline: &PipelineStatus) -> Vec<String> {
    let number = |number: Option<u64>| number.map_or(NONE.into(), |n| n.to_string());
    vec![
        pipeline.name.clone(),
        pipeline.revision.to_string(),
        pipeline.policy.clone(),
        number(pipeline.ingested),
        number(pipeline.next),
        number(pipeline.lag),
    ]
}

fn prover_row(prover: &ProverStatus) -> Vec<String> {
    let state = match prover.state {
        _ if prover.lost => "lost",
        ProverState::Active => "active",
        ProverState::Draining => "draining",
        ProverState::Quarantined => "quarantined",
    };
    let role = match prover.role {
        Role::Prover => "prover",
        Role::Verifier => "verifier",
    };
    vec![
        prover.id.to_string(),
        prover.zkvm.to_string(),
        role.into(),
        prover.slots.to_string(),
        prover.held.to_string(),
        state.into(),
        format!("{} ago", table::span(Duration::from_millis(prover.heard_ms_ago))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_what_was_ingested_and_not_emitted() {
        assert_eq!(lag(Some(10), Some(8)), Some(3));
        assert_eq!(lag(Some(10), Some(11)), Some(0));
        assert_eq!((lag(None, Some(1)), lag(Some(1), None)), (None, None));
    }

    #[test]
    fn a_silent_prover_is_shown_as_lost() {
        let prover = |heard_ms_ago, lost| ProverStatus {
            id: "miden-1".parse().unwrap(),
            zkvm: "miden".parse().unwrap(),
            role: Role::Prover,
            slots: 2,
            held: 1,
            state: ProverState::Active,
            heard_ms_ago,
            lost,
        };
        let row = prover_row(&prover(120, false));
        assert_eq!(
            row,
            ["miden-1", "miden", "prover", "2", "1", "active", "120 ms ago"]
        );
        assert_eq!(prover_row(&prover(5_000, true))[5..], ["lost", "5.0 s ago"]);
    }
}
