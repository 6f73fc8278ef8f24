//! Trace context as text (W3C Trace Context), which travels with a message over any transport.

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use push0_domain::trace::TraceContext;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The two headers in the form that the propagator reads and writes.
#[derive(Default)]
struct Headers(TraceContext);

/// Makes the span a child of the span described by the headers. Absent or invalid headers are ignored,
/// because a trace is never a reason to refuse a message.
///
/// Call this function before the span is first entered and before [`context`] reads the span: a started
/// span keeps its parent.
pub fn set_parent(span: &Span, parent: &TraceContext) {
    // With telemetry off, the span is disabled and cannot have a parent.
    if span.is_disabled() || parent.traceparent.is_none() {
        return;
    }
    let parent = TraceContextPropagator::new().extract(&Headers(parent.clone()));
    if parent.span().span_context().is_valid() {
        // The call fails if no receiver for traces is configured; then there is no trace to attach
        // the parent to.
        let _ = span.set_parent(parent);
    }
}

/// Returns the context that makes a span elsewhere a child of this span. With telemetry off, returns
/// `parent` unchanged, so that the trace continues behind a service without tracing.
pub fn context(span: &Span, parent: &TraceContext) -> TraceContext {
    let context = span.context();
    if !context.span().span_context().is_valid() {
        return parent.clone();
    }
    let mut headers = Headers::default();
    TraceContextPropagator::new().inject_context(&context, &mut headers);
    let Headers(TraceContext {
        traceparent,
        tracestate,
    }) = headers;
    TraceContext {
        traceparent,
        tracestate: tracestate.filter(|state| !state.is_empty()),
    }
}

impl Extractor for Headers {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => self.0.traceparent.as_deref(),
            TRACESTATE => self.0.tracestate.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

impl Injector for Headers {
    fn set(&mut self, key: &str, value: String) {
        match key {
            TRACEPARENT => self.0.traceparent = Some(value),
            TRACESTATE => self.0.tracestate = Some(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::registry;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// Runs the work with a tracer that records spans and exports none.
    fn traced<R>(work: impl FnOnce() -> R) -> R {
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        with_default(
            registry().with(tracing_opentelemetry::layer().with_tracer(tracer)),
            work,
        )
    }

    fn headers(traceparent: Option<&str>, tracestate: Option<&str>) -> TraceContext {
        TraceContext {
            traceparent: traceparent.map(Into::into),
            tracestate: tracestate.map(Into::into),
        }
    }

    fn own(span: &Span) -> TraceContext {
        context(span, &TraceContext::default())
    }

    #[test]
    fn a_context_round_trips_through_its_headers() {
        traced(|| {
            let span = tracing::info_span!("child");
            set_parent(&span, &headers(Some(PARENT), Some("vendor=x")));
            let context = own(&span);
            let traceparent = context.traceparent.as_deref().expect("the span has a context");
            assert_eq!(traceparent[..36], PARENT[..36], "the trace is the parent's");
            assert_ne!(traceparent, PARENT, "the span is its own");
            assert!(
                traceparent.ends_with("-01"),
                "the decision to sample is the parent's"
            );
            assert_eq!(context.tracestate.as_deref(), Some("vendor=x"));

            let grandchild = tracing::info_span!("grandchild");
            set_parent(&grandchild, &context);
            assert_eq!(
                own(&grandchild).traceparent.expect("the span has a context")[..36],
                PARENT[..36]
            );
        });
    }

    #[test]
    fn headers_that_are_not_valid_are_ignored() {
        traced(|| {
            for bad in [
                None,
                Some(""),
                Some("00-zz"),
                Some("00-00000000000000000000000000000000-b7ad6b7169203331-01"),
            ] {
                let span = tracing::info_span!("root");
                set_parent(&span, &headers(bad, Some("=,=")));
                let context = own(&span);
                assert!(context.traceparent.is_some_and(|own| own[3..35] != PARENT[3..35]));
                assert_eq!(context.tracestate, None);
            }
        });
    }

    #[test]
    fn without_telemetry_the_context_is_passed_on_as_it_came() {
        with_default(registry(), || {
            let came = headers(Some(PARENT), None);
            for span in [tracing::info_span!("alone"), Span::none()] {
                set_parent(&span, &came);
                assert_eq!(context(&span, &came), came);
                assert_eq!(own(&span), TraceContext::default());
            }
        });
    }
}
