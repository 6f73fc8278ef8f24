//! Stores, announces and logs which queues are held.

use crate::{decide::Turn, service::Active};
use push0_bus::{BusError, now};
use push0_domain::{
    ZkvmId,
    message::{Happening, HeldQueue},
    subject,
};

impl Active<'_> {
    /// Reads the queues that an earlier dispatcher held.
    pub(crate) async fn recall_holds(&mut self) -> Result<(), BusError> {
        for fact in self.holds.readable(&subject::facts::holds()).await? {
            if let (Some(zkvm), Some(held)) = (subject::facts::zkvm_of_hold(&fact.key), fact.value) {
                self.session.core.recall_hold(zkvm, held, now());
            }
        }
        Ok(())
    }

    pub(crate) async fn hold(&mut self, zkvm: &ZkvmId, turn: Turn) -> Result<(), BusError> {
        let key = subject::facts::hold(zkvm);
        match turn {
            Turn::Held(held) => {
                let HeldQueue {
                    since,
                    failures,
                    error,
                } = held.clone();
                tracing::warn!(
                    %zkvm,
                    failures,
                    error,
                    "the queue is held: attempts failed in a row without a success in between. One task at a time is tried \
                     until one succeeds, the others wait uncharged: repair the provers or the services they depend on"
                );
                self.holds.put(&key, &held).await?;
                let zkvm = zkvm.clone();
                let happening = Happening::QueueHeld {
                    zkvm,
                    since,
                    failures,
                    error,
                };
                self.bus.announce(None, happening);
            }
            Turn::Opened(held) => {
                let held_for = now().since(held.since);
                tracing::info!(%zkvm, ?held_for, "the queue is open again: an attempt succeeded");
                self.holds.delete(&key).await?;
                let zkvm = zkvm.clone();
                self.bus.announce(None, Happening::QueueOpened { zkvm });
            }
        }
        self.metrics.hold(&self.session.core);
        Ok(())
    }
}
