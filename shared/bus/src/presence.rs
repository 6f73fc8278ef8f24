//! Whether a subject has a listener. A process with a subject of its own shows its connection:
//! the broker ends its subscriptions with its connection.

use crate::Bus;
use async_nats::client::RequestErrorKind;
use std::time::Duration;

impl Bus {
    /// Returns whether the broker says that a subject has no listener. A listener need not answer: if the broker
    /// does not say so `within` this time, there is a listener, or the broker is away.
    pub async fn has_no_listener(&self, subject: String, within: Duration) -> bool {
        // An inbox of its own: the client keeps a question on its shared inbox in memory until an answer comes, and a
        // listener gives none.
        let question = async_nats::Request::new()
            .timeout(Some(within))
            .inbox(self.client.new_inbox());
        let asked = self.client.send_request(subject, question).await;
        asked.is_err_and(|error| error.kind() == RequestErrorKind::NoResponders)
    }
}
