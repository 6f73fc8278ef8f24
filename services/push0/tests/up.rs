//! `push0 up` as a process, tested on a real broker with stand-ins for the services.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use push0_harness::wait_for;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const PROCESSES: [&str; 7] = [
    "ingester",
    "dispatcher",
    "collector",
    "watchdog",
    "gateway",
    "vm-1",
    "vm-verifier-1",
];

/// Stand-in for a service: answers probes, writes its process id to a file with its name, and leaves a file
/// when it stops in order.
const SERVICE: &str = r#"#!/usr/bin/env python3
import http.server, os, signal, sys
name = os.environ.get("PUSH0_PROVER__ID", os.path.basename(sys.argv[0]))
here = os.path.dirname(os.path.abspath(sys.argv[0]))
unknown = [key for key in os.environ if key.startswith("PUSH0_") and key not in (
    "PUSH0_NATS__URL", "PUSH0_HTTP__LISTEN", "PUSH0_SUBMIT__LISTEN", "PUSH0_GATEWAY__LISTEN", "PUSH0_PROVER__ID", "PUSH0_PROVER__ZKVM",
    "PUSH0_PROVER__SLOTS", "PUSH0_PROVER__GRACE", "PUSH0_PROVER__SPOOL", "PUSH0_TELEMETRY__LOG")]
if unknown or os.path.exists(f"{here}/refuse"):
    print(f"wrong: {unknown}", flush=True)
    sys.exit(64)
if sys.argv[-1] == "--check-start":
    if os.path.exists(f"{here}/doubt"):
        print(f"push0: refused: {name} has a wrong key", flush=True)
        sys.exit(64)
    sys.exit(0)
def stop(*_):
    open(f"{here}/{name}.stopped", "w").close()
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"process_resident_memory_bytes 8e6\n")
    def log_message(self, *_):
        pass
host, port = os.environ["PUSH0_HTTP__LISTEN"].split(":")
server = http.server.HTTPServer((host, int(port)), Ready)
with open(f"{here}/{name}.new", "w") as file:
    file.write(str(os.getpid()))
os.rename(f"{here}/{name}.new", f"{here}/{name}.pid")
print("args", sys.argv[1:], "submit", os.environ.get("PUSH0_SUBMIT__LISTEN"), flush=True)
server.serve_forever()
"#;

const PIPELINE: &str = r#"
name = "test"
[source]
kind = "http"
[[proof]]
type = "p"
zkvm = "vm"
[[proof.stage]]
name = "prove"
kind = "map"
timeout = "1s"
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary directory"));
        std::fs::create_dir(place.bin()).expect("a directory");
        for name in [
            "ingester",
            "push0-dispatcher",
            "collector",
            "watchdog",
            "gateway",
            "prover-vm",
        ] {
            let path = place.bin().join(name);
            std::fs::write(&path, SERVICE).expect("a file");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("an executable");
        }
        std::fs::write(place.pipeline(), PIPELINE).expect("a file");
        place
    }

    fn bin(&self) -> PathBuf {
        self.0.path().join("bin")
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.0.path().join("log")).unwrap_or_default()
    }

    fn pipeline(&self) -> PathBuf {
        self.0.path().join("test.toml")
    }

    fn push0(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_push0"));
        command.args(args).arg("--dir").arg(self.dir());
        command
            .env("PUSH0_BIN_DIR", self.bin())
            .env("PUSH0_TELEMETRY__LOG", "info");
        command.env_remove("PUSH0_NATS__URL").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.push0(args).output().expect("push0 runs")
    }

    fn up(&self) -> Up {
        self.up_with(&[])
    }

    fn up_with(&self, variables: &[(&str, &str)]) -> Up {
        let log = std::fs::File::create(self.0.path().join("log")).expect("a file");
        let mut command = self.push0(&["up"]);
        command
            .arg("--pipeline")
            .arg(self.pipeline())
            .envs(variables.iter().copied())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log);
        Up(command.spawn().expect("push0 runs"))
    }

    async fn is_up(&self) -> BTreeMap<String, i32> {
        wait_for("push0 to be up", SOON, async || {
            self.log().contains("push0 is up").then_some(()).ok_or(self.log())
        })
        .await;
        self.pids()
    }

    fn pid(&self, name: &str) -> Option<i32> {
        let name = if self.bin().join(format!("push0-{name}")).exists() {
            format!("push0-{name}")
        } else {
            name.into()
        };
        std::fs::read_to_string(self.bin().join(format!("{name}.pid")))
            .ok()?
            .parse()
            .ok()
    }

    fn pids(&self) -> BTreeMap<String, i32> {
        let pid = |name: &&str| ((*name).to_owned(), self.pid(name).expect("it ran"));
        PROCESSES.iter().map(pid).collect()
    }

    fn endpoint(&self) -> serde_json::Value {
        let text = std::fs::read(self.dir().join("endpoint.json")).expect("an endpoint");
        serde_json::from_slice(&text).expect("it is JSON")
    }

    fn broker_answers(&self) -> bool {
        let port = self.endpoint()["nats_port"].as_u64().expect("a port");
        std::net::TcpStream::connect(("127.0.0.1", u16::try_from(port).expect("a port"))).is_ok()
    }

    async fn all_are_gone(&self, pids: &BTreeMap<String, i32>) {
        wait_for("all processes to be gone", SOON, async || {
            let left: Vec<&String> = pids
                .iter()
                .filter(|(_, pid)| lives(**pid))
                .map(|(name, _)| name)
                .collect();
            if left.is_empty() && !self.broker_answers() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        })
        .await;
    }
}

struct Up(Child);

impl Up {
    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.0.id()).expect("a process id fits");
        kill(Pid::from_raw(id), signal).expect("it takes signals");
    }

    async fn ended(&mut self) -> Option<i32> {
        wait_for("push0 to end", SOON, async || {
            self.0.try_wait().expect("it can be waited for")
        })
        .await
        .code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // The process is gone already unless the test failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns whether a process runs; a zombie does not count.
fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test]
async fn everything_starts_and_ctrl_c_stops_it_in_order() {
    let place = Place::new();
    let mut up = place.up();
    let pids = place.is_up().await;
    assert!(place.broker_answers());
    let log = place.log();
    assert!(log.contains("pipeline test: revision 1"), "{log}");
    assert!(log.contains("vm-verifier-1 | args ['--verify']"), "{log}");
    assert!(log.contains("vm-1          | args [] submit None"), "{log}");
    let submit = place.endpoint()["submit"]
        .as_str()
        .expect("an address")
        .to_owned();
    assert!(
        log.contains(&format!("ingester      | args [] submit {submit}")),
        "{log}"
    );
    let way_in = format!("pipeline test: post blocks to http://{submit}/v1/pipelines/test/blocks");
    assert!(log.contains(&way_in), "{log}");
    // Another user of the machine has the port, and not the secret.
    let url = place.endpoint()["nats_url"].as_str().expect("a URL").to_owned();
    assert!(url.starts_with("nats://push0:") && !log.contains(&url), "{log}");
    assert_eq!(place.run(&["endpoint"]).stdout, format!("{url}\n").into_bytes());
    assert!(place.run(&["pipeline", "list"]).status.success());
    let bare = format!("nats://127.0.0.1:{}", place.endpoint()["nats_port"]);
    let stranger = Command::new(env!("CARGO_BIN_EXE_push0"))
        .args(["pipeline", "list", "--dir", "/nowhere", "--nats", &bare])
        .output();
    assert!(!stranger.expect("push0 runs").status.success());

    up.signal(Signal::SIGINT);
    assert_eq!(up.ended().await, Some(0), "{}", place.log());
    place.all_are_gone(&pids).await;
    for name in PROCESSES {
        let name = if name == "dispatcher" {
            "push0-dispatcher"
        } else {
            name
        };
        assert!(
            place.bin().join(format!("{name}.stopped")).exists(),
            "{name} was not asked to stop"
        );
    }
    assert!(!place.log().contains("killed"), "{}", place.log());
}

#[tokio::test]
async fn the_first_run_reads_the_settings_of_provers_beside_its_directory() {
    let place = Place::new();
    std::fs::write(
        place.0.path().join("provers.toml"),
        "[[prover]]\nzkvm = \"vm\"\ncount = 2\n[[prover]]\nzkvm = \"vn\"\n",
    )
    .expect("a file");
    assert!(!place.dir().exists());
    let mut up = place.up();
    place.is_up().await;
    assert!(place.pid("vm-2").is_some(), "{}", place.log());
    assert!(
        place.log().contains("no pipeline asks for zkVM vn"),
        "{}",
        place.log()
    );
    up.signal(Signal::SIGTERM);
    assert_eq!(up.ended().await, Some(0));
}

#[tokio::test]
async fn a_prover_has_its_own_grace() {
    let place = Place::new();
    std::fs::write(
        place.0.path().join("provers.toml"),
        "[[prover]]\nzkvm = \"vm\"\nenv = { PUSH0_PROVER__GRACE = \"0s\" }\n",
    )
    .expect("a file");
    // Stands for a prover that ignores the signal.
    let program = place.bin().join("prover-vm");
    let deaf = SERVICE.replace(
        "signal.signal(signal.SIGTERM, stop)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    );
    std::fs::write(program, deaf).expect("a file");
    let mut up = place.up();
    place.is_up().await;
    up.signal(Signal::SIGTERM);
    assert_eq!(up.ended().await, Some(0));
    // The grace of 0 s, and 6 s to stop.
    assert!(
        place.log().contains("did not stop within 6.0 s, killed"),
        "{}",
        place.log()
    );
}

#[tokio::test]
async fn what_dies_is_restarted_with_a_line_that_says_so() {
    let place = Place::new();
    let mut up = place.up();
    let before = place.is_up().await;
    kill(Pid::from_raw(before["collector"]), Signal::SIGKILL).expect("it takes signals");
    wait_for("the collector to be restarted", SOON, async || {
        place.pid("collector").filter(|pid| *pid != before["collector"])
    })
    .await;
    let log = place.log();
    let line = log
        .lines()
        .find(|line| line.contains("was killed by SIGKILL"))
        .expect("it is said");
    assert!(
        line.starts_with("collector ") && line.contains("restarted in 100 ms"),
        "{line}"
    );
    let after = place.pids();
    let same = PROCESSES
        .iter()
        .filter(|name| before[**name] == after[**name])
        .count();
    assert_eq!(same, PROCESSES.len() - 1);

    let status = place.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("it is JSON");
    let services = status["services"].as_array().expect("a list");
    assert_eq!(services.len(), PROCESSES.len());
    up.signal(Signal::SIGTERM);
    assert_eq!(up.ended().await, Some(0));
}

#[tokio::test]
async fn a_sigkill_leaves_nothing_and_the_next_run_goes_on_with_the_same_broker() {
    let place = Place::new();
    let mut up = place.up();
    let pids = place.is_up().await;
    let before = place.endpoint();
    up.signal(Signal::SIGKILL);
    assert_eq!(up.ended().await, None);
    place.all_are_gone(&pids).await;

    let mut up = place.up();
    let pids = place.is_up().await;
    assert!(
        place.log().contains("pipeline test: revision 1"),
        "{}",
        place.log()
    );
    let after = place.endpoint();
    assert_eq!(after["nats_url"], before["nats_url"]);
    assert_eq!(after["store_bytes"], before["store_bytes"]);
    assert_eq!(after["submit"], before["submit"]);
    up.signal(Signal::SIGTERM);
    assert_eq!(up.ended().await, Some(0));
    place.all_are_gone(&pids).await;
}

#[tokio::test]
async fn a_second_up_in_the_same_directory_is_refused() {
    let place = Place::new();
    let mut up = place.up();
    place.is_up().await;
    let pipeline = place.pipeline();
    let second = place.run(&["up", "--pipeline", pipeline.to_str().expect("it is text")]);
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second);
    assert!(
        said.contains(&format!("another `push0 up` (process {}) runs in", up.0.id())),
        "{said}"
    );
    up.signal(Signal::SIGTERM);
    assert_eq!(up.ended().await, Some(0));
}

#[tokio::test]
async fn a_service_that_refuses_its_configuration_ends_the_start() {
    let place = Place::new();
    std::fs::write(place.bin().join("refuse"), "").expect("a file");
    let mut up = place.up();
    assert_eq!(up.ended().await, Some(64));
    assert!(
        place.log().contains("refuses its configuration"),
        "{}",
        place.log()
    );
    assert!(!place.broker_answers());
}

#[tokio::test]
async fn every_program_is_asked_before_anything_starts() {
    let place = Place::new();
    std::fs::write(place.bin().join("doubt"), "").expect("a file");
    let mut up = place.up_with(&[("PUSH0_DISPATCH__AHEAD", "5")]);
    assert_eq!(up.ended().await, Some(64));
    let log = place.log();
    for line in [
        "push0: `up` hands PUSH0_DISPATCH__AHEAD to no service",
        "push0: collector would not start: collector has a wrong key\n",
        "push0: vm-1 would not start: vm-1 has a wrong key; its variables are `env` of zkVM vm in provers.toml\n",
    ] {
        assert!(log.contains(line), "{log}");
    }
    assert!(place.pid("collector").is_none(), "{log}");
    assert!(
        !place.dir().join("nats").exists() && !place.dir().join("endpoint.json").exists(),
        "{log}"
    );
}

#[test]
fn what_is_missing_is_named_before_anything_starts() {
    let place = Place::new();
    std::fs::remove_file(place.bin().join("watchdog")).expect("it was there");
    std::fs::remove_file(place.bin().join("prover-vm")).expect("it was there");
    let pipeline = place.pipeline();
    let args = ["up", "--pipeline", pipeline.to_str().expect("it is text")];
    let refused = place.run(&args);
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("program `watchdog`") && said.contains("program `prover-vm`"),
        "{said}"
    );
    let mut command = place.push0(&args);
    let refused = command
        .env("NATS_SERVER", "/bin/true")
        .output()
        .expect("push0 runs");
    assert!(!place.dir().exists(), "{}", text(&refused));
}
