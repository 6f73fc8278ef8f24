//! Smallest service: waits for its stop, or ends badly as configured by `mode`.

use std::process::ExitCode;

use push0_domain::message::BlockFacts;
use push0_domain::trace::{TraceContext, publish};
use push0_domain::{BlockHash, BlockRef, PipelineId, Timestamp};
use push0_runtime::{BoxError, HasRuntimeConfig, HttpConfig, Service, TelemetryConfig, trace};
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    telemetry: TelemetryConfig,
    http: HttpConfig,
    mode: Mode,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Wait,
    Fail,
    Panic,
    Stubborn,
}

impl HasRuntimeConfig for Config {
    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn http(&self) -> &HttpConfig {
        &self.http
    }
}

async fn idle(service: Service<Config>) -> Result<(), BoxError> {
    service.health.component("idle").ready();
    let pipeline = PipelineId::new("idle")?;
    for number in 0..3 {
        let block = BlockRef {
            number,
            hash: BlockHash([7; 32]),
        };
        let trace = trace::of_block(&TraceContext::default(), &pipeline, &block, Timestamp(1));
        let facts = BlockFacts::default();
        trace::write(trace.map(|trace| publish(&trace, &pipeline, &block, &facts)));
        tracing::info!(number, "turning");
    }
    match service.config.mode {
        Mode::Wait => service.shutdown.requested().await,
        Mode::Fail => return Err("nothing to wait for".into()),
        Mode::Panic => assert!(service.shutdown.is_requested(), "nobody asked"),
        Mode::Stubborn => std::future::pending().await,
    }
    Ok(())
}

fn main() -> ExitCode {
    push0_runtime::run("idle", env!("CARGO_PKG_VERSION"), idle)
}
