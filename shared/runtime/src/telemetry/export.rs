//! Export of spans from the process: a bounded queue, batches, one exporter.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor as _,
};
use tokio::runtime::Handle;

use super::endpoint::Endpoint;
use super::error::TelemetryError;
use super::receiver::{MAX_QUEUE, Receiver};
use super::sink::Sink;
use crate::config::OtlpProtocol;
use crate::metrics;

/// Most spans sent in one batch.
const MAX_BATCH: usize = 256;
/// Longest time for which a span waits for its batch to fill.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// Time limit for the export of a batch, retries included.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Builds the queue that sends the spans of the service `push0-<name>` to the endpoint.
pub(super) fn sink(
    name: &str,
    version: &str,
    endpoint: &Endpoint,
    ratio: f64,
) -> Result<Sink, TelemetryError> {
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
    let lost = metrics::counter(
        "spans_lost_total",
        "Spans lost to a receiver that has taken spans before: in exports that failed or timed out, or from a full queue.",
    );
    let receiver = Arc::new(Receiver::new(
        endpoint.url.clone(),
        lost.map_err(TelemetryError::Metric)?,
    ));
    let exporter = Watched {
        exporter: Arc::new(exporter.map_err(TelemetryError::Exporter)?),
        runtime: Handle::current(),
        receiver: receiver.clone(),
    };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(MAX_QUEUE)
        .with_max_export_batch_size(MAX_BATCH)
        .with_scheduled_delay(BATCH_DELAY)
        .build();
    let host = host();
    // Spans of one host share a clock. A reader such as Jaeger corrects the clocks of different hosts only.
    let resource = Resource::builder()
        .with_service_name(format!("push0-{name}"))
        .with_attributes([
            KeyValue::new("service.version", version.to_owned()),
            KeyValue::new("service.instance.id", instance_id(&host)),
            KeyValue::new("host.name", host),
        ])
        .build();
    let mut queue = BatchSpanProcessor::builder(exporter)
        .with_batch_config(batches)
        .build();
    queue.set_resource(&resource);
    Ok(Sink::new(queue, receiver, ratio))
}

fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host.trim().to_owned()
}

/// Returns an id made of host, process and start time. The start time is needed because a container's
/// main process has the number 1 after every restart.
fn instance_id(host: &str) -> String {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{host}-{}-{:x}", std::process::id(), started.as_millis())
}

/// An exporter that runs on the service's runtime and notes whether the receiver answers.
///
/// The SDK drives exporters on a thread of its own, where tokio's clients have no reactor.
#[derive(Debug)]
struct Watched<E> {
    exporter: Arc<E>,
    runtime: Handle,
    receiver: Arc<Receiver>,
}

impl<E: SpanExporter + 'static> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (exporter, spans) = (Arc::clone(&self.exporter), batch.len());
        self.receiver.unqueued(spans);
        if !self.receiver.takes() {
            // Queued before the receiver was found to be away.
            self.receiver.dropped(spans);
            return Ok(());
        }
        let sent = self.runtime.spawn(async move {
            // The timeout of the clients does not cover a connection that hangs.
            let export = tokio::time::timeout(EXPORT_TIMEOUT, exporter.export(batch));
            export.await.unwrap_or(Err(OTelSdkError::Timeout(EXPORT_TIMEOUT)))
        });
        let result = sent
            .await
            .unwrap_or_else(|ended| Err(OTelSdkError::InternalFailure(ended.to_string())));
        let error = result.as_ref().err();
        self.receiver
            .answered(spans, error.map(|error| error as &dyn std::fmt::Display));
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
