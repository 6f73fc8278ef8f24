//! Stores, announces and logs which queues are held.

use crate::{decide::Turn, service::Active};
use push0_bus::{BusError, now};
use push0_domain::{
    ZkvmId,
    message::{Happening, Opened},
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
        tell(zkvm, &turn);
        let zkvm = zkvm.clone();
        let happening = match turn {
            Turn::Held(held) => {
                self.holds.put(&key, &held).await?;
                Happening::QueueHeld { zkvm, held }
            }
            Turn::Opened(_, why) => {
                self.holds.delete(&key).await?;
                Happening::QueueOpened { zkvm, why }
            }
        };
        self.bus.announce(None, happening);
        self.metrics.hold(&self.session.core);
        Ok(())
    }
}

/// Logs that a queue is held or open again.
fn tell(zkvm: &ZkvmId, turn: &Turn) {
    match turn {
        Turn::Held(held) => {
            let (failures, error) = (held.failures, &held.error);
            match &held.task {
                None => tracing::warn!(
                    %zkvm,
                    failures,
                    error,
                    "the queue is held: attempts failed in a row without a success in between. One task at a time is tried \
                     until one succeeds, the others wait uncharged: repair the provers or the services they depend on"
                ),
                Some(task) => tracing::warn!(
                    %zkvm,
                    failures,
                    error,
                    block.number = task.block.number,
                    pipeline = %task.pipeline,
                    "the queue is shown as held: {} alone failed in a row, and no other attempt succeeded in between. Other \
                     tasks go on. If the input of the block is bad, `push0 cancel` gives the block up",
                    task.task_in_words()
                ),
            }
        }
        Turn::Opened(held, why) => {
            let held_for = now().since(held.since);
            match why {
                Opened::Succeeded => {
                    tracing::info!(%zkvm, ?held_for, "the queue is open again: an attempt succeeded");
                }
                Opened::Outlived => tracing::info!(
                    %zkvm,
                    ?held_for,
                    "the queue is open again: an attempt has run for much longer than those that failed"
                ),
                Opened::NoWork => tracing::info!(
                    %zkvm,
                    ?held_for,
                    "the queue is open again, because no work is left for it and not because an attempt succeeded: its \
                     blocks were cancelled or given up. The cause of the failures may last"
                ),
            }
        }
    }
}
