//! Events: notifications for dashboards and other observers.

use crate::{Bus, Message, now};
use futures::FutureExt;
use push0_domain::{
    Participant, PipelineId,
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
        self.say_event(subject::event(pipeline, what.kind()), what);
    }

    /// Publishes an event in the name of a verifier, which may tell some. Otherwise as [`Self::announce`].
    pub fn notice(&self, verifier: &Participant, what: Happening) {
        self.say_event(subject::notice(verifier, what.kind()), what);
    }

    fn say_event(&self, subject: String, what: Happening) {
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
