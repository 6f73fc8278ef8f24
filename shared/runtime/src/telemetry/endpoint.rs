//! Receiver of traces: the section `telemetry`, else the standard variables of OpenTelemetry.

use crate::config::OtlpProtocol;
use crate::{Invalid, TelemetryConfig};

const ENDPOINT_VAR: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL_VAR: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

/// URL and protocol of a receiver of traces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) protocol: OtlpProtocol,
}

/// Returns the receiver of traces, or `None` if there is none. The protocol variable is ignored unless
/// the endpoint comes from a variable too.
pub(super) fn resolve(
    config: &TelemetryConfig,
    var: impl Fn(&str) -> Option<String>,
) -> Result<Option<Endpoint>, Invalid> {
    let var = |name| var(name).filter(|value| !value.is_empty());
    let expected = "a URL such as http://collector:4317 (TLS is not supported)";
    let (refused, url, protocol) = if let Some(url) = &config.otlp_endpoint {
        let refused = Invalid::new("telemetry.otlp_endpoint", expected);
        (refused, url.clone(), config.otlp_protocol)
    } else if let Some(url) = var(ENDPOINT_VAR) {
        let protocol = match var(PROTOCOL_VAR).as_deref() {
            None => config.otlp_protocol,
            Some("grpc") => OtlpProtocol::Grpc,
            Some("http/protobuf") => OtlpProtocol::Http,
            Some(found) => return Err(Invalid::in_variable(PROTOCOL_VAR, found, "grpc or http/protobuf")),
        };
        let refused = Invalid::in_variable(ENDPOINT_VAR, &url, expected);
        (refused, url, protocol)
    } else {
        return Ok(None);
    };
    let fits = |url: &str| {
        let uri = url.parse::<axum::http::Uri>().ok();
        uri.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some())
    };
    if !fits(&url) {
        return Err(refused);
    }
    let url = match protocol {
        OtlpProtocol::Grpc => url,
        OtlpProtocol::Http => format!("{}/v1/traces", url.trim_end_matches('/')),
    };
    Ok(Some(Endpoint { url, protocol }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(endpoint: Option<&str>, vars: &[(&str, &str)]) -> Result<Option<Endpoint>, String> {
        let otlp_endpoint = endpoint.map(str::to_owned);
        let config = TelemetryConfig {
            otlp_endpoint,
            ..TelemetryConfig::default()
        };
        let var = |name: &str| {
            vars.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        };
        resolve(&config, var).map_err(|invalid| invalid.key)
    }

    fn some(url: &str, protocol: OtlpProtocol) -> Result<Option<Endpoint>, String> {
        Ok(Some(Endpoint {
            url: url.to_owned(),
            protocol,
        }))
    }

    #[test]
    fn the_standard_variables_count_when_the_configuration_has_no_endpoint() {
        let vars = [
            (ENDPOINT_VAR, "http://env:4318/"),
            (PROTOCOL_VAR, "http/protobuf"),
        ];
        assert_eq!(resolved(None, &[]), Ok(None));
        assert_eq!(
            resolved(None, &vars),
            some("http://env:4318/v1/traces", OtlpProtocol::Http)
        );
        assert_eq!(
            resolved(Some("http://file:4317"), &vars),
            some("http://file:4317", OtlpProtocol::Grpc)
        );
        assert_eq!(resolved(None, &[(ENDPOINT_VAR, "")]), Ok(None));
    }

    #[test]
    fn an_endpoint_that_cannot_be_reached_is_refused_by_name() {
        for bad in ["collector:4317", "https://collector:4317", "http//x", ""] {
            assert_eq!(
                resolved(Some(bad), &[]),
                Err("telemetry.otlp_endpoint".to_owned()),
                "{bad}"
            );
        }
        assert_eq!(
            resolved(None, &[(ENDPOINT_VAR, "grpc://x")]),
            Err(ENDPOINT_VAR.to_owned())
        );
    }
}
