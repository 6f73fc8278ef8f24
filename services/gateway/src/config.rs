//! The gateway's configuration.

use crate::access::{InvalidTokens, Tokens};
use push0_bus::NatsConfig;
use push0_runtime::{BoxError, HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;
use std::{net::SocketAddr, path::PathBuf};

/// The requirement for a gateway that other machines reach.
const ADDRESS_OR_TOKENS: &str =
    "a loopback address, such as 127.0.0.1:8480, or tokens in gateway.tokens_file";

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
        let has_no_tokens = self.gateway.tokens_file.as_os_str().is_empty();
        if has_no_tokens && !self.gateway.listen.ip().is_loopback() {
            return Err(Invalid::new("gateway.listen", ADDRESS_OR_TOKENS));
        }
        let url = &self.gateway.jaeger_url;
        if !url.is_empty() && !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Invalid::new("gateway.jaeger_url", "an http or https URL"));
        }
        Ok(())
    }

    fn check_files(&self) -> Result<(), BoxError> {
        self.nats.check_files()?;
        let GatewayConfig {
            listen, tokens_file, ..
        } = &self.gateway;
        let file = tokens_file.display();
        let tokens = self.gateway.tokens();
        let tokens = tokens.map_err(|e| format!("gateway.tokens_file `{file}`: expected {e}"))?;
        if tokens.is_empty() && !listen.ip().is_loopback() {
            return Err(format!(
                "gateway.listen is {listen}, and gateway.tokens_file `{file}` has no token: expected {ADDRESS_OR_TOKENS}"
            )
            .into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: [u8; 4], tokens_file: &std::path::Path) -> Config {
        let gateway = GatewayConfig {
            listen: SocketAddr::from((listen, 8480)),
            tokens_file: tokens_file.to_owned(),
            ..GatewayConfig::default()
        };
        Config {
            gateway,
            ..Config::default()
        }
    }

    #[test]
    fn the_tokens_are_read_at_the_start_only() {
        let config = config([0, 0, 0, 0], "/nowhere".as_ref());
        assert_eq!(config.validate(), Ok(()));
        let missing = config.check_files().expect_err("no file").to_string();
        assert!(
            missing.starts_with("gateway.tokens_file `/nowhere`: expected "),
            "{missing}"
        );
    }

    #[test]
    fn an_open_address_needs_a_token() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let open = config([0, 0, 0, 0], file.path());
        let refused = open.check_files().expect_err("no token").to_string();
        assert!(refused.starts_with("gateway.listen is 0.0.0.0:8480"), "{refused}");
        assert!(config([127, 0, 0, 1], file.path()).check_files().is_ok());
        assert!(config([0, 0, 0, 0], "".as_ref()).validate().is_err());
    }
}
