//! The way of finished spans into the queue of the exporter.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor as _};
use push0_domain::Timestamp;
use push0_domain::trace::{self, Attributes, Kind, Span, Trace};

use super::receiver::Receiver;

static INSTALLED: OnceLock<Sink> = OnceLock::new();

/// The queue of spans to the receiver. Clones share one queue.
#[derive(Clone)]
pub struct Sink {
    queue: Arc<BatchSpanProcessor>,
    receiver: Arc<Receiver>,
    scope: InstrumentationScope,
    /// The share of new traces whose spans are made.
    ratio: f64,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("ratio", &self.ratio)
            .finish_non_exhaustive()
    }
}

impl Sink {
    pub(super) fn new(queue: BatchSpanProcessor, receiver: Arc<Receiver>, ratio: f64) -> Self {
        Self {
            queue: Arc::new(queue),
            receiver,
            scope: InstrumentationScope::builder("push0").build(),
            ratio,
        }
    }

    /// Makes this queue the one of the process. Telemetry is set up once, so there is no other.
    pub(super) fn install(self) {
        let _ = INSTALLED.set(self);
    }

    /// Returns the queue of the process, if its traces have a receiver.
    pub(crate) fn installed() -> Option<&'static Self> {
        INSTALLED.get()
    }

    /// Returns whether the receiver takes spans, as far as known.
    pub fn takes(&self) -> bool {
        self.receiver.takes()
    }

    /// Queues a span. While the receiver is away, the span is dropped.
    pub fn write(&self, span: Span) {
        if self.receiver.admits() {
            self.queue.on_end(data(span, self.scope.clone()));
        }
    }

    /// Returns whether the spans of a new trace are made, by its id, so that all processes agree.
    pub(crate) fn keeps(&self, trace: &Trace) -> bool {
        let [.., a, b, c, d, e, f, g, h] = trace.id.0;
        let drawn = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
        let drawn = drawn as f64 / u64::MAX as f64;
        drawn < self.ratio || self.ratio >= 1.0
    }

    pub(super) fn shutdown(&self, timeout: Duration) -> bool {
        self.queue.shutdown_with_timeout(timeout).is_ok()
    }
}

fn data(span: Span, scope: InstrumentationScope) -> SpanData {
    let mut events = SpanEvents::default();
    let told = span.events.into_iter();
    events.events = told
        .map(|event| Event::new(event.name, time(event.at), attributes(event.attributes), 0))
        .collect();
    let mut links = SpanLinks::default();
    links.links = span.links.into_iter().map(link).collect();
    SpanData {
        span_context: context(span.trace, span.id, false),
        parent_span_id: span
            .parent
            .map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.0)),
        parent_span_is_remote: span.parent.is_some(),
        span_kind: match span.kind {
            Kind::Internal => SpanKind::Internal,
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
        },
        name: span.name,
        start_time: time(span.start),
        end_time: time(span.end),
        attributes: attributes(span.attributes),
        dropped_attributes_count: 0,
        events,
        links,
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope,
    }
}

fn context(trace: trace::TraceId, span: trace::SpanId, is_remote: bool) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(trace.0),
        SpanId::from_bytes(span.0),
        TraceFlags::SAMPLED,
        is_remote,
        TraceState::default(),
    )
}

fn link(link: trace::Link) -> Link {
    let why = vec![KeyValue::new("link.reason", link.why)];
    Link::new(context(link.trace, link.span, true), why, 0)
}

fn attributes(attributes: Attributes) -> Vec<KeyValue> {
    let value = |value| match value {
        trace::Value::Text(text) => Value::from(text),
        trace::Value::Number(number) => Value::from(number),
        trace::Value::Flag(flag) => Value::from(flag),
    };
    let attributes = attributes.into_iter();
    attributes
        .map(|(key, told)| KeyValue::new(key, value(told)))
        .collect()
}

fn time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_micros(at.0))
        .unwrap_or(UNIX_EPOCH)
}
