//! A real Jaeger, where `scripts/setup jaeger` has built one.

use super::tree::Seen;
use push0_harness::wait_for;
use push0_scenarios::PATIENCE;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// The process, which ends with this value.
pub(super) struct Jaeger {
    child: Child,
    _directory: TempDir,
    query: String,
    /// Where spans go, over gRPC.
    pub(super) endpoint: String,
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a port that was free a moment ago.
async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    listener.local_addr().expect("an address").port()
}

fn program() -> Option<PathBuf> {
    let built = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools/bin/jaeger"));
    let named = std::env::var_os("JAEGER").map(PathBuf::from);
    named.or(Some(built)).filter(|path| path.is_file())
}

/// How long the shipped Jaeger collects the spans of a trace before it decides, in these tests.
const DECISION_WAIT: &str = "6s";

impl Jaeger {
    /// Starts Jaeger. Returns `None` where none is built. Its spans are in badger: this version's storage in memory finds
    /// nothing by `error=true`, which it takes for a text and not for the state of a span.
    pub(super) async fn start() -> Option<Self> {
        let config = r#"
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines: { traces: { receivers: [otlp], exporters: [jaeger_storage_exporter] } }
  telemetry: { metrics: { level: none }, logs: { level: error } }
extensions:
  jaeger_query:
    storage: { traces: badger }
    http: { endpoint: "0.0.0.0:16686" }
    grpc: { endpoint: "127.0.0.1:16685" }
  jaeger_storage: { backends: { badger: { badger: { ephemeral: true } } } }
receivers: { otlp: { protocols: { grpc: { endpoint: "0.0.0.0:4317" }, http: { endpoint: "0.0.0.0:4318" } } } }
exporters: { jaeger_storage_exporter: { trace_storage: badger } }
"#;
        Self::with(config.to_owned()).await
    }

    /// Starts Jaeger as `deploy/jaeger` configures it, but for a shorter wait and no share of the blocks in which nothing
    /// of note happened. Returns `None` where none is built.
    pub(super) async fn as_shipped() -> Option<Self> {
        let shipped = include_str!("../../../../../deploy/jaeger/jaeger.yaml").to_owned();
        let waits = set(
            &shipped,
            "decision_wait: 90s",
            &format!("decision_wait: {DECISION_WAIT}"),
        );
        Self::with(set(&waits, "sampling_percentage: 10", "sampling_percentage: 0")).await
    }

    /// Starts Jaeger with a configuration, whose ports are replaced by free ones.
    async fn with(config: String) -> Option<Self> {
        let Some(program) = program() else {
            println!(
                "no .tools/bin/jaeger: `scripts/setup jaeger` builds it; the test of the OTLP receiver stands"
            );
            return None;
        };
        let (http, otlp) = (free_port().await, free_port().await);
        let mut config = config;
        for (shipped, port) in [
            ("0.0.0.0:16686", http),
            ("127.0.0.1:16685", free_port().await),
            ("0.0.0.0:4317", otlp),
            ("0.0.0.0:4318", free_port().await),
        ] {
            config = set(&config, shipped, &format!("127.0.0.1:{port}"));
        }
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("jaeger.yaml");
        std::fs::write(&path, config).expect("written");
        let mut command = Command::new(program);
        command.arg("--config").arg(&path);
        let command = command.env("TMPDIR", directory.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let jaeger = Self {
            child: child.expect("Jaeger starts"),
            _directory: directory,
            query: format!("http://127.0.0.1:{http}/api"),
            endpoint: format!("http://127.0.0.1:{otlp}"),
        };
        wait_for("Jaeger to answer", PATIENCE, async || {
            jaeger.ask("services").await.map(drop)
        })
        .await;
        Some(jaeger)
    }

    async fn ask(&self, path: &str) -> Result<Value, String> {
        let answer = reqwest::Client::new().get(format!("{}/{path}", self.query));
        let answer = answer.send().await.map_err(|error| error.to_string())?;
        let answer = answer.json::<Value>().await.map_err(|error| error.to_string())?;
        match &answer["data"] {
            Value::Null if !answer["errors"].is_null() => Err(answer["errors"].to_string()),
            data => Ok(data.clone()),
        }
    }

    /// Returns the traces with a span of the collector that has these tags.
    pub(super) async fn find(&self, tags: &Value) -> Result<Vec<Vec<Seen>>, String> {
        let tags: String = tags
            .to_string()
            .bytes()
            .map(|byte| format!("%{byte:02x}"))
            .collect();
        let query = format!("traces?service=push0-collector&lookback=1h&limit=1000&tags={tags}");
        let found = self.ask(&query).await?;
        let traces = found.as_array().into_iter().flatten();
        Ok(traces.map(spans).collect())
    }
}

/// Replaces a setting, which the configuration holds.
fn set(config: &str, from: &str, to: &str) -> String {
    assert!(config.contains(from), "`{from}` in {config}");
    config.replace(from, to)
}

fn spans(trace: &Value) -> Vec<Seen> {
    let services = &trace["processes"];
    let spans = trace["spans"].as_array().into_iter().flatten();
    spans
        .map(|span| {
            let process = text(&span["processID"]);
            seen(span, text(&services[&*process]["serviceName"]))
        })
        .collect()
}

fn seen(span: &Value, service: String) -> Seen {
    let list = |key: &str| span[key].as_array().cloned().unwrap_or_default();
    let references = list("references");
    let of_kind = |kind: &str| {
        let kind = kind.to_owned();
        let found = references
            .iter()
            .filter(move |reference| reference["refType"] == *kind);
        found
            .map(|reference| (text(&reference["traceID"]), text(&reference["spanID"])))
            .collect::<Vec<_>>()
    };
    let attributes: BTreeMap<String, String> = list("tags")
        .iter()
        .map(|tag| (text(&tag["key"]), text(&tag["value"])))
        .collect();
    let event = |log: &Value| {
        let fields = log["fields"].as_array().cloned().unwrap_or_default();
        let name = fields.iter().find(|field| field["key"] == "event");
        name.map(|field| text(&field["value"]))
    };
    let start_us = span["startTime"].as_u64().unwrap_or_default();
    Seen {
        service,
        name: text(&span["operationName"]),
        trace: text(&span["traceID"]),
        id: text(&span["spanID"]),
        parent: of_kind("CHILD_OF")
            .into_iter()
            .next()
            .map(|(_, id)| id)
            .unwrap_or_default(),
        start_us,
        end_us: start_us + span["duration"].as_u64().unwrap_or_default(),
        is_error: attributes.get("error").is_some_and(|error| error == "true"),
        attributes,
        events: list("logs").iter().filter_map(event).collect(),
        links: of_kind("FOLLOWS_FROM"),
        warnings: list("warnings").iter().map(text).collect(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
