//! Follows the checks without a verdict, and removes the unwanted ones.

use super::Active;
use push0_bus::{BusError, Stream, now};
use push0_domain::{
    message::{BlockEnded, TaskResult},
    output::Output,
    subject::{self, AttemptKey, Kind},
    trace::TraceContext,
    wanted::{Claim, Claims},
};
use std::collections::HashMap;

impl Active<'_> {
    /// Shows the checks without a verdict as metrics.
    pub(super) fn count_unverified(&self) {
        self.metrics.unverified.reset();
        for ((zkvm, obstacle), count) in self.session.unverified.counts() {
            let labels = [zkvm.as_str(), obstacle.as_str()];
            self.metrics.unverified.with_label_values(&labels).set(count);
        }
    }

    /// Removes checks whose blocks have ended: another proof came first, or an operator cancelled the block. They
    /// would be tried for ever.
    pub(super) async fn sweep_unverified(&mut self) -> Result<(), BusError> {
        let mut outputs = HashMap::new();
        for key in self.session.unverified.to_sweep(now()) {
            if !outputs.contains_key(&key.pipeline) {
                let output = self.output(&key.pipeline).await?.unwrap_or_default();
                outputs.insert(key.pipeline.clone(), output);
            }
            let Some(output) = outputs.get(&key.pipeline) else {
                continue;
            };
            let may_have_ended = self.session.unverified.ends_of(&key.pipeline).next().is_some();
            if key.block.number < output.next() || may_have_ended {
                self.remove_unwanted(&key, output).await?;
            }
        }
        Ok(())
    }

    /// Returns a check and its trace. `None` if it has gone or is not to be believed.
    pub(super) async fn check(
        &mut self,
        key: &AttemptKey,
    ) -> Result<Option<(TaskResult, TraceContext)>, BusError> {
        let subject = subject::reports_of_attempt(Kind::Check, key);
        let Some(kept) = self.bus.last::<TaskResult>(Stream::Checks, &subject).await? else {
            return Ok(None);
        };
        let Ok(result) = kept.body else { return Ok(None) };
        let report = self.seals.admit(&kept.subject, Kind::Check, &result).await?;
        Ok(report.is_ok().then_some((result, kept.trace)))
    }

    async fn remove_unwanted(&mut self, key: &AttemptKey, output: &Output) -> Result<(), BusError> {
        let subject = subject::reports_of_attempt(Kind::Check, key);
        let Some(kept) = self.bus.last::<TaskResult>(Stream::Checks, &subject).await? else {
            self.session.unverified.settled(key);
            return Ok(());
        };
        let Ok(result) = kept.body else { return Ok(()) };
        let (stage, context) = (&result.header.id.stage, &result.header.context);
        let claim = Claim {
            announcement: context.first_announcement(),
            ..context.claim()
        };
        let is_recorded = !output.assess(stage.first_block().number, claim).is_wanted();
        let ends = |ended: &BlockEnded| !ended.assess(stage, context.claim()).is_wanted();
        let is_ended = self.session.unverified.ends_of(&key.pipeline).any(ends);
        if !is_recorded && !is_ended {
            return Ok(());
        }
        tracing::info!(attempt.key = %key, "removing a check without a verdict, its block has ended");
        self.bus
            .purge_up_to(Stream::Checks, &kept.subject, kept.sequence)
            .await?;
        self.session.unverified.settled(key);
        self.metrics.acts.with_label_values(&["removed"]).inc();
        Ok(())
    }
}
