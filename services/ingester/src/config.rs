//! Configuration of the ingester. The sources of blocks are configured in the pipelines, not here.

use push0_bus::NatsConfig;
use push0_runtime::{BoxError, HasRuntimeConfig, HttpConfig, TelemetryConfig};
use serde::Deserialize;
use std::{io, net::SocketAddr, path::PathBuf};

/// The configuration of the ingester.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Connection to the broker.
    pub nats: NatsConfig,
    /// Settings of logs and traces.
    pub telemetry: TelemetryConfig,
    /// Server for health and metrics.
    pub http: HttpConfig,
    /// Server for blocks submitted by HTTP.
    pub submit: SubmitConfig,
}

/// The section `submit`: the server to which blocks of `http` pipelines are posted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubmitConfig {
    /// Address of `POST /v1/pipelines/{name}/blocks`, such as `127.0.0.1:8090`. Port 0 picks a free port,
    /// which is logged. Without `token_file`, every client able to reach the address can submit blocks. Default: no
    /// server.
    pub listen: Option<SocketAddr>,
    /// A file with the token that submitters send as `Authorization: Bearer TOKEN`. Default: no token is asked for.
    pub token_file: Option<PathBuf>,
}

impl HasRuntimeConfig for Config {
    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn http(&self) -> &HttpConfig {
        &self.http
    }

    fn check_files(&self) -> Result<(), BoxError> {
        self.nats.check_files()?;
        self.submit.token().map(drop)
    }
}

impl SubmitConfig {
    /// Reads the token that submitters must send; `None` if they need none.
    pub(crate) fn token(&self) -> Result<Option<String>, BoxError> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let wrong = |e: io::Error| format!("submit.token_file `{}`: {e}", path.display());
        let token = std::fs::read_to_string(path).map_err(wrong)?.trim().to_owned();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let expected = "expected a token, a word of printable characters";
            return Err(wrong(io::Error::other(expected)).into());
        }
        Ok(Some(token))
    }
}
