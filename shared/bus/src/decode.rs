//! Decoding the body and the headers of a message.

use async_nats::HeaderMap;
use push0_domain::{
    codec::{self, CodecError},
    trace::TraceContext,
};
use serde::de::DeserializeOwned;

/// Decodes the body of a message as its headers describe it.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8], headers: Option<&HeaderMap>) -> Result<T, CodecError> {
    let (schema, encoding) = (codec::SCHEMA_HEADER, codec::ENCODING_HEADER);
    codec::decode_described(body, header(headers, schema), header(headers, encoding))
}

/// Returns the trace context from the headers of a message.
pub(crate) fn trace_of(headers: Option<&HeaderMap>) -> TraceContext {
    TraceContext {
        traceparent: header(headers, "traceparent").map(Into::into),
        tracestate: header(headers, "tracestate").map(Into::into),
    }
}

fn header<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    headers?.get(name).map(|value| value.as_str())
}
