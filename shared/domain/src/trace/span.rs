//! A finished span as a plain value.

use crate::Timestamp;
use std::{borrow::Cow, fmt};

/// The id of a trace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

/// The id of a span in its trace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub [u8; 8]);

/// The end of a span that is over when the record of its block is stored, until the instant is known.
pub const UNENDED: Timestamp = Timestamp(u64::MAX);

impl TraceId {
    pub(super) fn derived(kind: &str, what: &str) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&hash(&[], kind, what)[..16]);
        Self(id)
    }

    /// Returns the id of the span of a kind about something in this trace.
    pub fn span(&self, kind: &str, what: &str) -> SpanId {
        let mut id = [0; 8];
        id.copy_from_slice(&hash(&self.0, kind, what)[..8]);
        SpanId(id)
    }
}

fn hash(trace: &[u8], kind: &str, what: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(trace).update(kind.as_bytes());
    hasher.update(b"\0").update(what.as_bytes());
    hasher.finalize().into()
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a span takes part in messaging, by OpenTelemetry's conventions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work or a wait.
    Internal,
    /// The sending of a message.
    Producer,
    /// The receipt or the handling of a message.
    Consumer,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Attributes of a span, an event or a link.
pub type Attributes = Vec<(&'static str, Value)>;

/// A span that another one refers to without being a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The trace of the other span.
    pub trace: TraceId,
    /// The other span.
    pub span: SpanId,
    /// Why it is referred to, in one word.
    pub why: &'static str,
}

/// Something that happened during a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The name of the event.
    pub name: &'static str,
    /// When it happened.
    pub at: Timestamp,
    /// The details, by name.
    pub attributes: Attributes,
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace.
    pub trace: TraceId,
    /// The id of the span.
    pub id: SpanId,
    /// The span that this one is a part of; `None` for a root.
    pub parent: Option<SpanId>,
    /// The kind of thing the span is about, and the definition's word for it.
    pub name: Cow<'static, str>,
    /// How the span takes part in messaging.
    pub kind: Kind,
    /// When it began.
    pub start: Timestamp,
    /// When it ended, or [`UNENDED`].
    pub end: Timestamp,
    /// The details, by name.
    pub attributes: Attributes,
    /// Why the span counts as an error, if so.
    pub error: Option<String>,
    /// Other spans that it refers to.
    pub links: Vec<Link>,
    /// The events meanwhile.
    pub events: Vec<Event>,
}

impl Span {
    pub(super) fn new(
        (trace, id, parent): (TraceId, SpanId, Option<SpanId>),
        name: impl Into<Cow<'static, str>>,
        (start, end): (Timestamp, Timestamp),
    ) -> Self {
        Self {
            trace,
            id,
            parent,
            name: name.into(),
            kind: Kind::Internal,
            start,
            // Clocks of two machines may differ. No span ends before it begins.
            end: end.max(start),
            attributes: Vec::new(),
            error: None,
            links: Vec::new(),
            events: Vec::new(),
        }
    }

    pub(super) fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    pub(super) fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((key, value.into()));
        self
    }

    /// Marks the span as an error, and tells why in an event, by OpenTelemetry's words for an exception.
    pub(super) fn failed(mut self, kind: &str, reason: &str, at: Timestamp) -> Self {
        let line = reason.lines().next().unwrap_or_default();
        self.error = Some(format!("{kind}: {line}"));
        self.events.push(Event {
            name: "exception",
            at,
            attributes: vec![
                ("exception.type", kind.into()),
                ("exception.message", reason.into()),
            ],
        });
        self.with("error.type", kind)
    }
}

/// Ends the spans without a known end, and the events at their end.
pub fn close(mut spans: Vec<Span>, at: Timestamp) -> Vec<Span> {
    for span in &mut spans {
        if span.end == UNENDED {
            span.end = at.max(span.start);
        }
        for event in &mut span.events {
            event.at = event.at.min(span.end);
        }
    }
    spans
}
