//! Events: what happened, told to whoever watches.

use crate::{Bus, Message, now};
use futures::FutureExt;
use push0_domain::{
    PipelineId,
    codec::Encoding,
    message::{Event, Happening},
    subject,
    trace::TraceContext,
};

impl Bus {
    /// Announces what happened, to a pipeline or to what serves all of them. In JSON: it is read by
    /// dashboards. Never waits and never fails: no work is held up by an event, and one may be lost.
    pub fn announce(&self, pipeline: Option<&PipelineId>, what: Happening) {
        let subject = subject::event(pipeline, what.kind());
        let event = Event { at: now(), what };
        match Message::encoded(subject, &event, &TraceContext::default(), Encoding::Json) {
            Ok(message) => {
                if !matches!(self.signal(message).now_or_never(), Some(Ok(()))) {
                    tracing::debug!(kind = event.what.kind(), "event not sent");
                }
            }
            Err(error) => tracing::debug!(%error, "event cannot be written"),
        }
    }
}
