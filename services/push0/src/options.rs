//! Options shared by commands: the broker, the state directory, the form of the output, the pipeline.

use clap::Args;
use push0_domain::PipelineId;
use std::path::PathBuf;

/// Options common to all commands.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// Broker URL [default: the broker of the `push0 up` that runs in DIR, else nats://127.0.0.1:4222].
    ///
    /// Credentials and TLS files come from PUSH0_NATS__CREDENTIALS, PUSH0_NATS__NKEY_SEED,
    /// PUSH0_NATS__TLS_CA, PUSH0_NATS__TLS_CERT and PUSH0_NATS__TLS_KEY, as for the services.
    #[arg(
        long,
        global = true,
        env = "PUSH0_NATS__URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) nats: Option<String>,
    /// State directory of `push0 up`.
    #[arg(long, global = true, default_value = "./.push0", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Selection of a pipeline.
#[derive(Args, Clone, Debug)]
pub(crate) struct Of {
    /// Name of the pipeline. May be omitted if there is only one.
    #[arg(long, value_name = "NAME")]
    pub(crate) pipeline: Option<PipelineId>,
}
