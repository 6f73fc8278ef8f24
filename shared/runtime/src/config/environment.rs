//! The environment as a source of settings, and the mapping of variables to keys.

use std::collections::BTreeMap;
use std::ffi::OsString;

use ::config::{ConfigError as SourceError, Map, Source, Value, ValueKind};

use super::error::ConfigError;

const PREFIX: &str = "PUSH0_";
/// Variable read by the command line, which sets no key.
const COMMAND_LINE: &str = "PUSH0_CONFIG";

/// The settings found in the environment, by variable name.
#[derive(Clone, Debug)]
pub(super) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Collects the settings among the variables.
    pub(super) fn collect(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, ConfigError> {
        let mut settings = BTreeMap::new();
        for (name, value) in vars {
            let Some(name) = name.to_str().filter(|name| is_setting(name)) else {
                continue;
            };
            let Ok(value) = value.into_string() else {
                return Err(ConfigError::not_text(key(name), name));
            };
            settings.insert(name.to_owned(), value);
        }
        Ok(Self(settings))
    }
}

impl Source for Environment {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, SourceError> {
        let entry = |(name, value): (&String, &String)| {
            (
                key(name),
                Value::new(Some(name), ValueKind::String(value.clone())),
            )
        };
        Ok(self.0.iter().map(entry).collect())
    }
}

/// Returns the name of the environment variable for the key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

fn key(variable: &str) -> String {
    variable
        .trim_start_matches(PREFIX)
        .replace("__", ".")
        .to_lowercase()
}

fn is_setting(name: &str) -> bool {
    name.starts_with(PREFIX) && name != COMMAND_LINE && !is_service_link(name)
}

/// Returns whether Kubernetes set the variable. Kubernetes announces every Service of a namespace to its
/// pods in variables named after the Service: `push0-nats` leads to `PUSH0_NATS_SERVICE_HOST`,
/// `PUSH0_NATS_PORT` and `PUSH0_NATS_PORT_4222_TCP_ADDR`. Such variables are not settings.
fn is_service_link(name: &str) -> bool {
    let port = |rest: &str| {
        rest.is_empty()
            || rest
                .strip_prefix('_')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    !name.contains("__")
        && (name.contains("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || name.rsplit_once("_PORT").is_some_and(|(_, rest)| port(rest))
            || name
                .split_once("_PORT_")
                .is_some_and(|(_, rest)| port(&format!("_{rest}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_are_read_as_keys() {
        assert!(is_setting("PUSH0_TELEMETRY__LOG"));
        assert!(is_setting("PUSH0_NATS__PORT"));
        assert!(is_setting("PUSH0_TYPO"));
        for other in [
            "PATH",
            "PUSH0_CONFIG",
            "PUSH0_NATS_SERVICE_HOST",
            "PUSH0_NATS_SERVICE_PORT_CLIENT",
            "PUSH0_NATS_PORT",
            "PUSH0_NATS_PORT_4222_TCP",
            "PUSH0_NATS_PORT_4222_TCP_ADDR",
        ] {
            assert!(!is_setting(other), "{other} is no setting");
        }
    }

    #[test]
    fn a_key_and_its_variable_name_each_other() {
        assert_eq!(key("PUSH0_TELEMETRY__OTLP_PROTOCOL"), "telemetry.otlp_protocol");
        assert_eq!(
            variable("telemetry.otlp_protocol"),
            "PUSH0_TELEMETRY__OTLP_PROTOCOL"
        );
    }
}
