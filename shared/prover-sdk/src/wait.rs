//! How long a message waited before this process had a slot for it.

use push0_bus::Delivery;
use push0_domain::{Timestamp, time::micros};
use std::time::Duration;

/// Returns the wait of a message that has a slot at `now`, in microseconds. `here` is the time since its delivery.
///
/// A message with an earlier delivery waited all the time: no earlier receiver could work on it.
pub(crate) fn before_slot<T, A>(delivery: &Delivery<T, A>, here: Duration, now: Timestamp) -> u64 {
    micros(match delivery.deliveries {
        0 | 1 => delivery.waited.saturating_add(here),
        _ => now.since(delivery.stored_at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_waits_in_the_stream_and_for_a_slot_and_one_delivered_again_waits_all_the_time() {
        let mut delivery = Delivery {
            body: (),
            trace: Default::default(),
            subject: String::new(),
            sequence: 1,
            stored_at: Timestamp(1_000),
            deliveries: 1,
            waited: Duration::from_micros(200),
            ack: (),
        };
        let here = Duration::from_micros(30);
        assert_eq!(before_slot(&delivery, here, Timestamp(90_000)), 230);
        delivery.deliveries = 3;
        assert_eq!(before_slot(&delivery, here, Timestamp(90_000)), 89_000);
        // The clock of the broker runs fast.
        assert_eq!(before_slot(&delivery, here, Timestamp(900)), 0);
    }
}
