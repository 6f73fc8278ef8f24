//! Orders to this prover: stop an attempt, drain, begin or end a quarantine.

use crate::node::Node;
use push0_bus::BusError;
use push0_domain::{message::Control, subject};
use std::{sync::Arc, time::Duration};

/// Longest quarantine that is obeyed. An order with a larger value is a mistake.
const QUARANTINE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Listens for orders until the connection breaks. An order may be lost; the watchdog repeats the order as
/// long as the lease does not reflect it.
pub(crate) async fn obey(node: Arc<Node>) -> Result<(), BusError> {
    let mut orders = node.bus.listen([subject::control(&node.participant())]).await?;
    loop {
        let order = orders.next().await?;
        match order.body::<Control>() {
            Ok(Control::Stop { attempt, reason }) => {
                if node.ledger.stop(&attempt, &reason) {
                    tracing::info!(task.id = %attempt.task, attempt = attempt.number, reason, "attempt stopped");
                }
            }
            Ok(Control::Drain) => node.drain(),
            Ok(Control::Quarantine { for_ms, reason }) => {
                tracing::warn!(for_ms, reason, "quarantined");
                node.ledger
                    .quarantine(Duration::from_millis(for_ms).min(QUARANTINE_MAX));
            }
            Err(error) => tracing::warn!(%error, "order cannot be decoded, ignoring it"),
        }
    }
}
