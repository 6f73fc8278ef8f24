//! Events: notifications for dashboards and other observers.

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
    /// Publishes an event about a pipeline, or, with `None`, about the deployment as a whole. The body
    /// is JSON because dashboards read it. Never waits and never fails: events hold up no work, and one
    /// may be lost.
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
