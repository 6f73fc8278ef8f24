//! Selection of a pipeline on the command line.

use crate::failure::Failure;
use clap::Args;
use push0_bus::{Bus, Pipelines};
use push0_domain::PipelineId;
use push0_domain::pipeline::Pipeline;
use std::sync::Arc;

/// Selection of a pipeline by its name.
#[derive(Args, Debug)]
pub(crate) struct Named {
    /// Name of the pipeline.
    #[arg(value_name = "NAME")]
    pub(super) name: PipelineId,
}

impl Named {
    /// Returns the current definition.
    pub(super) async fn current(&self, bus: &Bus) -> Result<Arc<Pipeline>, Failure> {
        let current = Pipelines::bind(bus).await?.current_of(&self.name).await?;
        current.ok_or_else(|| self.missing())
    }

    pub(super) fn missing(&self) -> Failure {
        let name = &self.name;
        Failure::failed(format!(
            "there is no pipeline `{name}`: see `push0 pipeline list`"
        ))
    }
}
