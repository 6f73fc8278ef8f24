//! Selection of dead letters on the command line.

use clap::Args;
use push0_domain::PipelineId;
use push0_operate::letters::Which;

/// Selection of one dead letter.
#[derive(Args, Debug)]
pub(crate) struct One {
    /// Id of the dead letter.
    #[arg(value_name = "ID")]
    pub(super) id: String,
}

/// Selection of one or more dead letters.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Chosen {
    /// Id of the dead letter.
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// All dead letters of this pipeline.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<PipelineId>,
    /// All dead letters of all pipelines.
    #[arg(long)]
    all: bool,
}

impl Chosen {
    /// Returns the letters to look up.
    pub(super) fn which(&self) -> Which {
        match (&self.id, &self.pipeline) {
            (Some(id), _) => Which::One(id.clone()),
            (None, Some(pipeline)) => Which::OfPipeline(pipeline.clone()),
            (None, None) => Which::All,
        }
    }
}
