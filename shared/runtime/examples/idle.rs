//! Smallest service: waits for its stop, or ends badly as configured by `mode`.

use std::process::ExitCode;

use push0_runtime::{BoxError, HasRuntimeConfig, HttpConfig, Service, TelemetryConfig};
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
    for turn in 0..3 {
        // Only targets that begin with `push0` are traced.
        let span = tracing::info_span!(target: "push0_idle", "turn", turn);
        span.in_scope(|| tracing::info!("turning"));
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
