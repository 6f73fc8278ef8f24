//! Whether a pipeline's source is well: said once in the log, always in health and metrics.

use crate::metrics::{Metrics, gauge_value};
use push0_domain::PipelineId;
use push0_runtime::{Component, Health, metrics::IntCounter};

/// What keeps a pipeline's blocks from coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The node does not answer, or not as it should.
    Node,
    /// The node's chain is not the one that was published.
    Chain,
    /// A file cannot be read, or a line of it is wrong.
    File,
    /// The broker does not take what is published.
    Broker,
}

impl Trouble {
    fn label(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Chain => "chain",
            Self::File => "file",
            Self::Broker => "broker",
        }
    }
}

/// The state of one pipeline's source in this process.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pipeline: PipelineId,
    component: Component,
    trouble: Option<Trouble>,
    metrics: Metrics,
}

impl Status {
    pub(crate) fn new(pipeline: &PipelineId, health: &Health, metrics: Metrics) -> Self {
        Self {
            pipeline: pipeline.clone(),
            component: health.named_component(&format!("source.{pipeline}")),
            trouble: None,
            metrics,
        }
    }

    /// All is well, or this process has nothing to do for the pipeline.
    pub(crate) fn fine(&mut self) {
        self.trouble = None;
        // Logs when it was not ready before.
        self.component.ready();
    }

    /// Something failed and is tried again. The reason of the first failure stands until it is over:
    /// a node that times out now and refuses then is one trouble, not a line of log each.
    pub(crate) fn failing(&mut self, trouble: Trouble, reason: &str) {
        let count = [self.pipeline.as_str(), trouble.label()];
        self.metrics.source_failures.with_label_values(&count).inc();
        if self.trouble == Some(trouble) {
            tracing::debug!(pipeline = %self.pipeline, reason, "the source still fails");
        } else {
            self.trouble = Some(trouble);
            self.component.not_ready(reason);
        }
    }

    /// As [`Self::failing`], where each reason is worth a line: it changes only when somebody acts.
    pub(crate) fn blocked(&mut self, trouble: Trouble, reason: &str) {
        if self.trouble.is_some() {
            self.component.not_ready(reason);
        }
        self.failing(trouble, reason);
    }

    /// The source has blocks up to this one.
    pub(crate) fn head(&self, number: u64) {
        let label = [self.pipeline.as_str()];
        self.metrics
            .head_block
            .with_label_values(&label)
            .set(gauge_value(number));
    }

    pub(crate) fn pipeline(&self) -> &PipelineId {
        &self.pipeline
    }

    /// Counts the connections that are opened to the pipeline's node. The label is the pipeline's name:
    /// a URL may hold secrets.
    pub(crate) fn connections_opened(&self) -> IntCounter {
        let opened = &self.metrics.connections_opened;
        opened.with_label_values(&[self.pipeline.as_str()])
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
