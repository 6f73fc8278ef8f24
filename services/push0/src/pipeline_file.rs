//! Reading of a pipeline file, with the overrides of the command line.

use crate::failure::Failure;
use crate::overrides::{self, Override};
use clap::Args;
use push0_domain::pipeline::Pipeline;
use std::path::{Path, PathBuf};

/// Arguments that select a pipeline file.
#[derive(Args, Clone, Debug)]
pub(crate) struct FileArgs {
    /// Pipeline file (TOML).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace a value in the file, such as source.rpc_url=http://localhost:8545.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<Override>,
}

impl FileArgs {
    pub(crate) fn load(&self) -> Result<Pipeline, Failure> {
        load(&self.file, &self.overrides)
    }
}

/// Reads and checks a pipeline file, with the overrides applied.
pub(crate) fn load(file: &Path, overrides: &[Override]) -> Result<Pipeline, Failure> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("pipeline file {name} cannot be read: {error}")))?;
    let set =
        overrides::apply(&text, overrides).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    Pipeline::from_toml(&name, &set).map_err(|error| {
        let is_good_alone = set != text && Pipeline::from_toml(&name, &text).is_ok();
        Failure::usage(match is_good_alone {
            true => format!(
                "{error}; the file alone is good: --set brings this about, and changes every file named here"
            ),
            false => error.to_string(),
        })
    })
}
