//! Export of spans from the process: a bounded queue, batches, one exporter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};
use tokio::runtime::Handle;

use super::endpoint::Endpoint;
use super::error::TelemetryError;
use crate::config::OtlpProtocol;
use crate::metrics::{self, IntCounter};

/// Most spans waiting for export: 2 MiB at about 1 KiB each. Further spans are dropped.
const MAX_QUEUE: usize = 2048;
/// Most spans sent in one batch.
const MAX_BATCH: usize = 256;
/// Longest time for which a span waits for its batch to fill.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// Time limit for the export of a batch, retries included.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Builds the provider that sends the spans of the service `push0-<name>` to the endpoint.
pub(super) fn provider(
    name: &str,
    version: &str,
    endpoint: &Endpoint,
    sample_ratio: f64,
) -> Result<SdkTracerProvider, TelemetryError> {
    let builder = OtlpExporter::builder();
    let exporter = match endpoint.protocol {
        OtlpProtocol::Grpc => builder
            .with_tonic()
            .with_endpoint(&endpoint.url)
            .with_timeout(EXPORT_TIMEOUT)
            .build(),
        OtlpProtocol::Http => (builder.with_http().with_protocol(Protocol::HttpBinary))
            .with_endpoint(&endpoint.url)
            .with_timeout(EXPORT_TIMEOUT)
            .build(),
    };
    let exporter = Watched {
        exporter: Arc::new(exporter.map_err(TelemetryError::Exporter)?),
        runtime: Handle::current(),
        link: Link::default(),
        lost: metrics::counter(
            "spans_lost_total",
            "Spans lost in exports that failed or timed out.",
        )
        .map_err(TelemetryError::Metric)?,
        endpoint: endpoint.url.clone(),
    };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(MAX_QUEUE)
        .with_max_export_batch_size(MAX_BATCH)
        .with_scheduled_delay(BATCH_DELAY)
        .build();
    let resource = Resource::builder()
        .with_service_name(format!("push0-{name}"))
        .with_attributes([
            KeyValue::new("service.version", version.to_owned()),
            KeyValue::new("service.instance.id", instance_id()),
        ])
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample_ratio)));
    Ok(SdkTracerProvider::builder()
        .with_span_processor(
            BatchSpanProcessor::builder(exporter)
                .with_batch_config(batches)
                .build(),
        )
        .with_sampler(sampler)
        .with_resource(resource)
        .build())
}

/// Returns an id made of host, process and start time. The start time is needed because a container's
/// main process has the number 1 after every restart.
fn instance_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-{:x}", host.trim(), std::process::id(), started.as_millis())
}

/// An exporter that runs on the service's runtime and logs only when the receiver becomes
/// unreachable or reachable.
///
/// The SDK drives exporters on a thread of its own, where tokio's clients have no reactor.
#[derive(Debug)]
struct Watched<E> {
    exporter: Arc<E>,
    runtime: Handle,
    link: Link,
    lost: IntCounter,
    endpoint: String,
}

impl<E: SpanExporter + 'static> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (exporter, spans) = (Arc::clone(&self.exporter), batch.len());
        let sent = self.runtime.spawn(async move {
            // The timeout of the clients does not cover a connection that hangs.
            let export = tokio::time::timeout(EXPORT_TIMEOUT, exporter.export(batch));
            export.await.unwrap_or(Err(OTelSdkError::Timeout(EXPORT_TIMEOUT)))
        });
        let result = sent
            .await
            .unwrap_or_else(|ended| Err(OTelSdkError::InternalFailure(ended.to_string())));
        if result.is_err() {
            self.lost.inc_by(spans as u64);
        }
        match (self.link.changed(result.is_ok()), &result) {
            (true, Ok(())) => tracing::info!(endpoint = self.endpoint, "traces are received again"),
            (true, Err(error)) => {
                tracing::warn!(endpoint = self.endpoint, %error, "traces are not received and get lost");
            }
            (false, _) => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // The SDK calls this function once, before any export shares the exporter.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

/// State of the receiver at the last export, at first assumed to be reachable.
#[derive(Debug, Default)]
struct Link {
    is_down: AtomicBool,
}

impl Link {
    fn changed(&self, is_up: bool) -> bool {
        self.is_down.swap(!is_up, Ordering::Relaxed) == is_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_link_is_told_once() {
        let link = Link::default();
        let told: Vec<_> = [true, false, false, true, true, false]
            .into_iter()
            .map(|up| link.changed(up))
            .collect();
        assert_eq!(told, [false, true, false, true, false, true]);
    }
}
