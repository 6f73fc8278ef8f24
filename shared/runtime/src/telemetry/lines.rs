//! Log lines of an attempt or a check, kept as events for the span that is sent when the work ends.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use push0_domain::Timestamp;
use push0_domain::time::micros;
use push0_domain::trace::{Attributes, Event, Value};
use tracing::field::{Field, Visit};
use tracing::span;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// The field by which a span of the log is that of one attempt or check.
const ATTEMPT: &str = "attempt";
/// The name of the events.
const LINE: &str = "log";
/// Most lines kept of one attempt. The first ones stay: later lines often repeat them.
const LINES_MAX: usize = 32;
/// Most characters kept of one field.
const TEXT_MAX: usize = 1_000;

/// Keeps the log lines within spans of attempts, until [`take`] is called.
pub(super) struct Lines;

/// The lines of one span.
struct Kept(Vec<Event>);

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let is_attempt = attributes.metadata().fields().field(ATTEMPT).is_some();
        if let Some(span) = context.span(id).filter(|_| is_attempt) {
            span.extensions_mut().insert(Kept(Vec::new()));
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        for span in context.event_scope(event).into_iter().flatten() {
            let mut extensions = span.extensions_mut();
            if let Some(Kept(lines)) = extensions.get_mut() {
                if lines.len() < LINES_MAX {
                    lines.push(line(event));
                }
                return;
            }
        }
    }
}

/// Takes the log lines within a span of an attempt. Empty in a process that sends no traces.
pub(crate) fn take(span: &tracing::Span) -> Vec<Event> {
    let lines = span.with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        let mut extensions = span.extensions_mut();
        extensions.get_mut().map(|Kept(lines)| std::mem::take(lines))
    });
    lines.flatten().unwrap_or_default()
}

fn line(event: &tracing::Event<'_>) -> Event {
    let mut fields = Fields(vec![("log.severity", event.metadata().level().as_str().into())]);
    event.record(&mut fields);
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Event {
        name: LINE,
        at: Timestamp(micros(since_epoch)),
        attributes: fields.0,
    }
}

/// The fields of a line as attributes of an event.
struct Fields(Attributes);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let name = match field.name() {
            "message" => "log.message",
            name => name,
        };
        let text: String = value.chars().take(TEXT_MAX).collect();
        self.0.push((name, text.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.push((field.name(), Value::Number(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn the_lines_of_an_attempt_become_events_and_others_do_not() {
        tracing::subscriber::with_default(Registry::default().with(Lines), || {
            tracing::warn!("before");
            let attempt = tracing::info_span!("prove", attempt = 1);
            attempt.in_scope(|| {
                let part = tracing::info_span!("upload");
                part.in_scope(|| tracing::warn!(code = 7_u64, is_late = true, "it is slow"));
                (0..2 * LINES_MAX).for_each(|count| tracing::info!(count, "more"));
            });
            let lines = take(&attempt);
            assert_eq!(lines.len(), LINES_MAX);
            let expected: Attributes = vec![
                ("log.severity", "WARN".into()),
                ("log.message", "it is slow".into()),
                ("code", Value::Number(7)),
                ("is_late", true.into()),
            ];
            assert_eq!((lines[0].name, &lines[0].attributes), (LINE, &expected));
            assert_eq!(take(&attempt), [], "they are taken once");
            assert_eq!(take(&tracing::info_span!("other")), []);
        });
    }
}
