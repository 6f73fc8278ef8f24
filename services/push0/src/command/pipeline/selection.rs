//! Selection of a pipeline on the command line.

use clap::Args;
use push0_domain::PipelineId;

/// Selection of a pipeline by its name.
#[derive(Args, Debug)]
pub(crate) struct Named {
    /// Name of the pipeline.
    #[arg(value_name = "NAME")]
    pub(super) name: PipelineId,
}
