//! `push0 provision`: creates or updates the streams, buckets and consumers on the broker.

use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use clap::Args;
use push0_bus::{Backoff, Bus, Limits, Pipelines, ProvisionError, Standing, Trouble};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// With less, a stream's share would be smaller than the largest message.
const STORE_BYTES_MIN: u64 = 256 << 20;
const KEEP_MIN: Duration = Duration::from_secs(3600);

#[derive(Args, Debug)]
pub(crate) struct ProvisionArgs {
    /// Copies of every stream: 1, or 3 on a cluster [default: as they are; 1 for new streams].
    #[arg(long, value_name = "1|3", value_parser = replicas)]
    replicas: Option<usize>,
    /// Limit for all streams and buckets together, in bytes [default: as it is; 8 GiB for new streams].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(STORE_BYTES_MIN..))]
    store_bytes: Option<u64>,
    /// Time for which records, blobs and facts of emitted blocks are kept, such as `7days` or `36h` [default: as it
    /// is; 7 days for new streams].
    #[arg(long, value_name = "TIME", value_parser = keep)]
    keep: Option<humantime::Duration>,
    /// Draw a new key for the seals of tasks. Seals of the three keys before it stay valid.
    #[arg(long)]
    new_seal_key: bool,
    /// Time to wait for brokers that form a cluster or elect a leader, such as `30s` or `10m`.
    #[arg(long, default_value = "30s", value_name = "TIME")]
    wait: humantime::Duration,
}

/// Parses `--keep`. The minimum of one hour leaves data for an operator to inspect after an incident.
fn keep(text: &str) -> Result<humantime::Duration, String> {
    let keep: humantime::Duration = text.parse().map_err(|e| format!("{e}"))?;
    if *keep < KEEP_MIN {
        return Err("expected at least 1h".into());
    }
    Ok(keep)
}

fn replicas(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("expected 1 or 3".into()),
    }
}

impl ProvisionArgs {
    /// Returns the wanted limits. A limit without an option stays as it is: a command for another purpose must not take
    /// copies away.
    fn limits(&self, current: Option<Limits>) -> Limits {
        let current = current.unwrap_or_default();
        Limits {
            replicas: self.replicas.unwrap_or(current.replicas),
            store_bytes: self.store_bytes.unwrap_or(current.store_bytes),
            keep: self.keep.map_or(current.keep, Into::into),
        }
    }
}

/// Creates or updates the streams and buckets, and retries until `until` while the brokers form a cluster. Returns their
/// limits.
async fn make(bus: &Bus, args: &ProvisionArgs, until: Instant) -> Result<Limits, Failure> {
    let mut backoff = Backoff::default();
    let mut told = String::new();
    loop {
        let error = match try_to_make(bus, args).await {
            Ok(limits) => return Ok(limits),
            Err(error) => error,
        };
        // A stopped stream refuses changes, and its own trouble is a better explanation than the error.
        if !error.may_pass() || Instant::now() >= until {
            let stopped = leaderless(bus).await;
            return Err(stopped.map_or_else(|| error.into(), Failure::failed));
        }
        tell_once(&mut told, format!("waiting for the brokers: {error}"));
        backoff.pause().await;
    }
}

async fn try_to_make(bus: &Bus, args: &ProvisionArgs) -> Result<Limits, ProvisionError> {
    let limits = args.limits(bus.provisioned().await?);
    bus.provision(&limits).await?;
    Ok(limits)
}

/// Waits until every stream has a leader. A stream without one accepts no messages.
async fn has_leaders(bus: &Bus, until: Instant) -> Result<(), Failure> {
    let mut backoff = Backoff::default();
    let mut told = String::new();
    while let Some(stopped) = leaderless(bus).await {
        if Instant::now() >= until {
            return Err(Failure::failed(stopped));
        }
        tell_once(&mut told, format!("waiting: {stopped}"));
        backoff.pause().await;
    }
    Ok(())
}

/// Returns the streams that accept no messages, with the reason; `None` if there are none.
async fn leaderless(bus: &Bus) -> Option<String> {
    let standings = bus.standings().await;
    let is_leaderless = |standing: &Standing| standing.trouble() == Some(Trouble::NoLeader);
    let stopped = standings.iter().filter_map(|(stream, standing)| {
        let standing = standing.as_ref().ok()?;
        is_leaderless(standing).then_some(stream.as_str())
    });
    let stopped: Vec<_> = stopped.collect();
    (!stopped.is_empty()).then(|| format!("{}: {}", stopped.join(", "), Trouble::NoLeader))
}

fn tell_once(told: &mut String, line: String) {
    if *told != line {
        output::note(&format!("push0: {line}"));
        *told = line;
    }
}

pub(crate) async fn run(context: &Context, args: &ProvisionArgs) -> Result<(), Failure> {
    let until = Instant::now() + *args.wait;
    let bus = context.broker_within(*args.wait).await?;
    let limits = make(&bus, args, until).await?;
    has_leaders(&bus, until).await?;
    if args.new_seal_key {
        bus.rotate_seal_key().await?;
    }
    // The consumers of earlier pipelines are created too, in case an operator deleted them.
    let mut zkvms: Vec<_> = Pipelines::bind(&bus)
        .await?
        .current()
        .await?
        .iter()
        .flat_map(|p| p.zkvms())
        .collect();
    zkvms.sort();
    zkvms.dedup();
    for zkvm in &zkvms {
        bus.provision_zkvm(zkvm).await?;
    }
    if context.json {
        return output::json(
            &json!({ "replicas": limits.replicas, "store_bytes": limits.store_bytes, "keep_s": limits.keep.as_secs(), "zkvms": zkvms }),
        );
    }
    output::line(&format!(
        "provisioned: {} replica(s), {} for all streams and buckets, proofs kept for {}, consumers of {} zkVM(s)",
        limits.replicas,
        crate::table::bytes(limits.store_bytes),
        humantime::Duration::from(limits.keep),
        zkvms.len()
    ))
}
