//! The gateway's configuration.

use crate::access::{InvalidTokens, Tokens};
use push0_bus::NatsConfig;
use push0_runtime::{HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;
use std::{net::SocketAddr, path::PathBuf};

/// The whole configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The connection to the broker.
    pub nats: NatsConfig,
    /// The page and its interface.
    pub gateway: GatewayConfig,
    /// Settings for logs and traces.
    pub telemetry: TelemetryConfig,
    /// Address of health checks and metrics.
    pub http: HttpConfig,
}

/// The section `[gateway]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// The address of the page. Without tokens it must be of this machine alone (loopback).
    pub listen: SocketAddr,
    /// A TOML file of tokens; empty for none.
    pub tokens_file: PathBuf,
    /// The address of Jaeger's page, for links to traces; empty for none.
    pub jaeger_url: String,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8480)),
            tokens_file: PathBuf::new(),
            jaeger_url: String::new(),
        }
    }
}

impl GatewayConfig {
    /// Reads the tokens; none if no file is named.
    ///
    /// # Errors
    /// The file cannot be read, or is not a valid list of tokens.
    pub fn tokens(&self) -> Result<Tokens, InvalidTokens> {
        if self.tokens_file.as_os_str().is_empty() {
            return Ok(Tokens::default());
        }
        Tokens::read(&self.tokens_file)
    }
}

impl HasRuntimeConfig for Config {
    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn http(&self) -> &HttpConfig {
        &self.http
    }

    fn validate(&self) -> Result<(), Invalid> {
        let tokens = self.gateway.tokens();
        let tokens = tokens.map_err(|error| Invalid::new("gateway.tokens_file", error.to_string()))?;
        if tokens.is_empty() && !self.gateway.listen.ip().is_loopback() {
            return Err(Invalid::new(
                "gateway.listen",
                "a loopback address, such as 127.0.0.1:8480, or tokens in gateway.tokens_file",
            ));
        }
        let url = &self.gateway.jaeger_url;
        if !url.is_empty() && !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Invalid::new("gateway.jaeger_url", "an http or https URL"));
        }
        Ok(())
    }
}
