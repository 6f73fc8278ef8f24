use std::io::Write as _;
use std::time::Duration;

use serde::Deserialize;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    telemetry: TelemetryConfig,
    http: HttpConfig,
    nats: Nats,
    lanes: Vec<Lane>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Nats {
    servers: Vec<String>,
    password: String,
    seed_length: u16,
    replicas: u8,
    verbose: bool,
    #[serde(with = "duration")]
    ack_wait: Duration,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lane {
    width: u32,
}

impl Default for Nats {
    fn default() -> Self {
        let (servers, password) = (vec!["nats://localhost".to_owned()], String::new());
        let ack_wait = Duration::from_secs(30);
        Self {
            servers,
            password,
            seed_length: 0,
            replicas: 1,
            verbose: false,
            ack_wait,
        }
    }
}

fn load(file: &str, vars: &[(&str, &str)]) -> Result<Settings, String> {
    let mut on_disk = tempfile::NamedTempFile::new().expect("a temporary file is made");
    on_disk.write_all(file.as_bytes()).expect("the file is written");
    let vars = vars
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let path = on_disk.path().to_owned();
    load_from(Some(&path), vars, |_| Ok(()))
        .map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
}

fn refusal(file: &str, vars: &[(&str, &str)]) -> String {
    load(file, vars).expect_err("the configuration is refused")
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let settings = load(
        "[telemetry]\nlog = 'debug'\nsample_ratio = 1\n[nats]\nreplicas = 3\nack_wait = '250ms'",
        &[
            ("PUSH0_TELEMETRY__LOG", "warn"),
            ("PUSH0_TELEMETRY__OTLP_PROTOCOL", "http"),
        ],
    )
    .expect("the configuration loads");
    assert_eq!(settings.telemetry.log, "warn");
    assert_eq!(settings.telemetry.otlp_protocol, OtlpProtocol::Http);
    assert_eq!(settings.nats.replicas, 3);
    assert_eq!(settings.nats.ack_wait, Duration::from_millis(250));
    assert_eq!(settings.nats.servers, ["nats://localhost"]);
    assert_eq!(load("", &[]).expect("an empty file loads"), Settings::default());
}

#[test]
fn a_variable_is_read_as_the_type_of_its_key() {
    let settings = load(
        "http.listen = '0.0.0.0:8080'",
        &[
            ("PUSH0_NATS__PASSWORD", "00123"),
            ("PUSH0_NATS__REPLICAS", "5"),
            ("PUSH0_NATS__VERBOSE", "true"),
            ("PUSH0_NATS__SERVERS", "nats://a, nats://b"),
            ("PUSH0_NATS__ACK_WAIT", "10m"),
            ("PUSH0_TELEMETRY__SAMPLE_RATIO", "0.25"),
            ("PUSH0_HTTP__LISTEN", ""),
        ],
    )
    .expect("the configuration loads");
    assert_eq!(settings.nats.password, "00123");
    assert_eq!(settings.nats.replicas, 5);
    assert!(settings.nats.verbose);
    assert_eq!(settings.nats.servers, ["nats://a", "nats://b"]);
    assert_eq!(settings.nats.ack_wait, Duration::from_secs(600));
    assert!((settings.telemetry.sample_ratio - 0.25).abs() < f64::EPSILON);
    assert_eq!(settings.http.listen, None);
}

#[test]
fn an_unknown_key_is_refused_with_its_path() {
    assert_eq!(
        refusal("[telemetry]\notlp_protocl = 'grpc'", &[]),
        "telemetry.otlp_protocl: unknown key, expected one of: log, format, otlp_endpoint, \
         otlp_protocol, sample_ratio (file FILE)"
    );
    assert_eq!(
        refusal("[[lanes]]\nwidth = 1\n[[lanes]]\nwidth = 1\ndepth = 2", &[]),
        "lanes[1].depth: unknown key, expected one of: width (file FILE)"
    );
}

#[test]
fn a_variable_of_another_service_is_refused_by_name() {
    assert_eq!(
        refusal(
            "",
            &[
                ("PUSH0_DISPATCHER__MAX_IN_FLIGHT", "4"),
                ("PUSH0_CONFIG", "x.toml")
            ]
        ),
        "dispatcher.max_in_flight: unknown key, expected one of: telemetry, http, nats, lanes \
         (environment variable PUSH0_DISPATCHER__MAX_IN_FLIGHT)"
    );
    let typo = refusal("", &[("PUSH0_HTTP_LISTEN", "0.0.0.0:1")]);
    assert!(
        typo.ends_with("(environment variable PUSH0_HTTP_LISTEN)"),
        "{typo}"
    );
}

#[test]
fn a_wrong_value_is_told_with_what_was_expected_and_where_it_came_from() {
    assert_eq!(
        refusal("", &[("PUSH0_TELEMETRY__OTLP_PROTOCOL", "grcp")]),
        "telemetry.otlp_protocol: found \"grcp\", expected one of: grpc, http \
         (environment variable PUSH0_TELEMETRY__OTLP_PROTOCOL)"
    );
    assert_eq!(
        refusal("nats.replicas = 300", &[]),
        "nats.replicas: found 300, expected u8 (file FILE)"
    );
    assert_eq!(
        refusal("nats.replicas = '3'", &[]),
        "nats.replicas: found \"3\", expected u8 (file FILE)"
    );
    assert_eq!(
        refusal("http.listen = 'here'", &[]),
        "http.listen: found \"here\": invalid socket address syntax (file FILE)"
    );
    assert_eq!(
        refusal("nats.ack_wait = '5 parsecs'", &[]),
        "nats.ack_wait: found \"5 parsecs\", expected a duration (file FILE)"
    );
}

#[test]
fn a_missing_key_is_told_with_the_places_that_could_set_it() {
    assert_eq!(
        refusal("[[lanes]]", &[]),
        "lanes[0].width: missing, and it has no default (neither in file FILE nor in PUSH0_LANES[0]__WIDTH)"
    );
}

#[test]
fn a_secret_is_never_shown() {
    for message in [
        refusal("", &[("PUSH0_NATS__SEED_LENGTH", "hunter2")]),
        refusal("nats.password = ['hunter2']", &[]),
        refusal("nats.replicas = 'nats://me:hunter2@host'", &[]),
        refusal("password = \"hunter2", &[]),
        refusal("nats.tokn_secret = 'hunter2'", &[]),
    ] {
        assert!(!message.contains("hunter2"), "{message}");
    }
    assert!(refusal("nats.seed_length = 'x'", &[]).contains("found ***, expected u16"));
}

#[test]
fn a_refusal_of_the_check_is_told_like_one_of_the_types() {
    let vars = [("PUSH0_NATS__REPLICAS".into(), "2".into())];
    let checked = load_from::<Settings>(None, vars, |_| Err(Invalid::new("nats.replicas", "1, 3 or 5")));
    assert_eq!(
        checked.expect_err("the check refuses").to_string(),
        "nats.replicas: found \"2\", expected 1, 3 or 5 (environment variable PUSH0_NATS__REPLICAS)"
    );
}

#[test]
fn a_file_that_is_absent_or_is_not_toml_is_told_by_name() {
    let absent = super::load::<Settings>(Some(Path::new("/nowhere/x.toml")));
    let absent = absent.expect_err("there is no such file").to_string();
    assert_eq!(absent, "configuration file /nowhere/x.toml cannot be read");
    let message = refusal("a = = 1", &[]);
    assert!(
        message.starts_with("configuration file FILE: TOML parse error at line 1"),
        "{message}"
    );
    assert!(!message.contains('\n'), "{message}");
}
