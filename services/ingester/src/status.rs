//! State of a pipeline's source: each change is logged once, and always visible in health and metrics.

use crate::metrics::{Metrics, gauge_value};
use push0_bus::Bus;
use push0_domain::PipelineId;
use push0_runtime::{Component, Health, metrics::IntCounter};

/// Kinds of trouble that keep blocks of a pipeline from being published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The node does not answer, or answers wrongly.
    Node,
    /// The node has no block yet at which the pipeline may begin.
    Begin,
    /// The node's chain differs from the published one.
    Chain,
    /// A file cannot be read, or one of its lines is wrong.
    File,
    /// The broker does not accept the blocks.
    Broker,
    /// The stored position of the pipeline cannot be read.
    State,
}

impl Trouble {
    fn label(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Begin => "begin",
            Self::Chain => "chain",
            Self::File => "file",
            Self::Broker => "broker",
            Self::State => "state",
        }
    }
}

/// State of one pipeline's source in this process.
#[derive(Clone)]
pub(crate) struct Status {
    bus: Bus,
    pipeline: PipelineId,
    component: Component,
    trouble: Option<Trouble>,
    metrics: Metrics,
}

impl Status {
    pub(crate) fn new(bus: &Bus, pipeline: &PipelineId, health: &Health, metrics: Metrics) -> Self {
        Self {
            bus: bus.clone(),
            pipeline: pipeline.clone(),
            component: health.named_component(&format!("source.{pipeline}")),
            trouble: None,
            metrics,
        }
    }

    /// Marks the source as working. Also called when this process has nothing to do for the pipeline.
    pub(crate) fn fine(&mut self) {
        self.trouble = None;
        // Logs only if the component was not ready before.
        self.component.ready();
    }

    /// Records a failure that will be retried. Health keeps the reason of the first failure until the
    /// trouble ends or becomes one of another kind: a node that times out and later refuses connections
    /// is one trouble, not a log line for each failure.
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

    /// Like [`Self::failing`], but logs each new reason: the reason changes only when an operator acts.
    pub(crate) fn blocked(&mut self, trouble: Trouble, reason: &str) {
        if self.trouble.is_some() {
            self.component.not_ready(reason);
        }
        self.failing(trouble, reason);
    }

    /// Records the number of the source's newest block.
    pub(crate) fn head(&self, number: u64) {
        self.bus.note_head(&self.pipeline, number);
        let label = [self.pipeline.as_str()];
        self.metrics
            .head_block
            .with_label_values(&label)
            .set(gauge_value(number));
    }

    pub(crate) fn pipeline(&self) -> &PipelineId {
        &self.pipeline
    }

    /// Returns the counter of connections opened to the pipeline's node. The label is the pipeline's
    /// name, because a URL may hold secrets.
    pub(crate) fn connections_opened(&self) -> IntCounter {
        let opened = &self.metrics.connections_opened;
        opened.with_label_values(&[self.pipeline.as_str()])
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
