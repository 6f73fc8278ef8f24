//! `push0 provision`: makes or updates everything on the broker.

use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use clap::Args;
use push0_bus::{Limits, Pipelines};
use serde_json::json;

/// Below this, a stream's share is smaller than the largest message.
const STORE_BYTES_MIN: u64 = 256 << 20;

#[derive(Args, Debug)]
pub(crate) struct ProvisionArgs {
    /// Copies of every stream: 1, or 3 on a cluster.
    #[arg(long, default_value_t = 1, value_name = "1|3", value_parser = replicas)]
    replicas: usize,
    /// What all streams and buckets together may take, in bytes.
    #[arg(long, default_value_t = Limits::default().store_bytes, value_name = "N",
          value_parser = clap::value_parser!(u64).range(STORE_BYTES_MIN..))]
    store_bytes: u64,
}

fn replicas(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("expected 1 or 3".into()),
    }
}

pub(crate) async fn run(context: &Context, args: &ProvisionArgs) -> Result<(), Failure> {
    let bus = context.broker().await?;
    let limits = Limits {
        replicas: args.replicas,
        store_bytes: args.store_bytes,
        ..Limits::default()
    };
    bus.provision(&limits).await?;
    // The consumers of pipelines that were applied before, in case somebody removed them.
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
            &json!({ "replicas": args.replicas, "store_bytes": args.store_bytes, "zkvms": zkvms }),
        );
    }
    output::line(&format!(
        "provisioned: {} replica(s), {} for all streams and buckets, consumers of {} zkVM(s)",
        args.replicas,
        crate::table::bytes(args.store_bytes),
        zkvms.len()
    ))
}
