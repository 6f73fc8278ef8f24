//! The disk of `push0 up` is full for a while. The disk is a file system in memory, in a mount namespace of the test's
//! own.

use push0_harness::{Process, wait_for};
use push0_scenarios::PATIENCE;
use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

/// Size of the disk: `push0 up` takes half of it for the store, and wants at least 256 MiB.
const SIZE: &str = "540m";
const BLOCKS: u32 = 150;
/// Time limit for the broker to be restarted and for all blocks to be proved.
const HEALED_WITHIN: &str = "90s";

const PIPELINE: &str = r#"
    name = "demo"
    [[proof]]
    type = "main"
    zkvm = "mock"
    [[proof.stage]]
    name = "prove"
    kind = "map"
    timeout = "10s"
    "#;

/// A `push0 up` whose state directory is on a small disk.
struct Up {
    child: Child,
    place: tempfile::TempDir,
}

impl Up {
    fn start() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let at = |name: &str| place.path().join(name);
        std::fs::create_dir(at("disk")).expect("a directory");
        let blocks: Vec<String> = (0..BLOCKS).map(|number| number.to_string()).collect();
        std::fs::write(at("blocks"), blocks.join("\n") + "\n").expect("a file");
        let source = format!(
            "{PIPELINE}\n[source]\nkind = \"file\"\npath = {:?}\n",
            at("blocks")
        );
        std::fs::write(at("demo.toml"), source).expect("a file");
        let provers = "[[prover]]\nzkvm = \"mock\"\nenv = { PUSH0_MOCK__TIME = \"200ms\" }\n";
        std::fs::write(at("provers.toml"), provers).expect("a file");
        let log = File::create(at("log")).expect("a file");
        let script = r#"mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@""#;
        let mut command = Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
            SIZE,
        ]);
        command.arg(at("disk")).arg(Process::path("push0")).arg("up");
        command.arg("--dir").arg(at("disk").join("state"));
        command
            .arg("--pipeline")
            .arg(at("demo.toml"))
            .arg("--provers")
            .arg(at("provers.toml"));
        command.env_remove("PUSH0_NATS__URL").stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file")).stderr(log);
        let child = command.spawn().expect("unshare is there");
        Self { child, place }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.place.path().join("log")).unwrap_or_default()
    }

    async fn says(&self, words: &str) {
        wait_for(words, PATIENCE * 2, async || {
            self.log().contains(words).then_some(()).ok_or(self.log())
        })
        .await;
    }

    /// Returns the path of the disk as this process sees it.
    fn disk(&self) -> PathBuf {
        let root = Path::new("/proc").join(self.child.id().to_string()).join("root");
        let disk = self.place.path().join("disk");
        root.join(disk.strip_prefix("/").expect("an absolute path"))
    }

    /// Runs a command of the operator, who finds the broker by its address.
    fn push0(&self, args: &[&str]) -> Output {
        let endpoint = std::fs::read(self.disk().join("state/endpoint.json")).expect("an endpoint");
        let endpoint: serde_json::Value = serde_json::from_slice(&endpoint).expect("it is JSON");
        let mut command = Command::new(Process::path("push0"));
        command
            .args(args)
            .arg("--nats")
            .arg(endpoint["nats_url"].as_str().expect("a URL"));
        command.output().expect("push0 runs")
    }

    fn emitted(&self) -> usize {
        let output = self.push0(&["blocks", "--last", "1000", "--json"]);
        String::from_utf8_lossy(&output.stdout)
            .matches("\"outcome\"")
            .count()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("{}", self.log());
        }
    }
}

/// Fills a disk to its last byte.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("a file");
    for size in [1 << 20, 1 << 12, 1] {
        let bytes = vec![0; size];
        while file.write_all(&bytes).is_ok() {}
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_heals_and_no_pipeline_is_stuck() {
    let up = Up::start();
    up.says("push0 is up").await;
    wait_for("some blocks", PATIENCE, async || {
        (up.emitted() >= 5).then_some(()).ok_or(up.log())
    })
    .await;

    let filler = up.disk().join("fill");
    fill(&filler);
    up.says("/state is full").await;
    // The broker stores no renewal for so long that the leaders give up.
    up.says("the lead as").await;
    let log = up.log();
    assert!(log.contains("no space left on device"), "{log}");
    assert!(!log.contains("another process leads"), "{log}");
    let before = up.emitted();
    assert!(before < BLOCKS as usize, "the disk was filled too late");

    std::fs::remove_file(&filler).expect("it was there");
    up.says("has room again").await;
    let blocks = BLOCKS.to_string();
    let report = up.push0(&["report", "--blocks", &blocks, "--wait", HEALED_WITHIN]);
    let said = String::from_utf8_lossy(&report.stderr);
    assert!(report.status.success(), "{said}\n{}", up.log());
    let status = up.push0(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("it is JSON");
    let streams = status["streams"].as_array().expect("a list");
    let left = |name: &str| {
        streams
            .iter()
            .find(|s| s["name"] == name)
            .map(|s| s["messages"].clone())
    };
    assert_eq!(left("PUSH0_DEAD"), Some(0.into()), "{status}");
    wait_for(
        "acknowledged messages to be swept",
        Duration::from_secs(20),
        async || {
            let status = up.push0(&["status", "--json"]);
            let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("it is JSON");
            let tasks = status["streams"]
                .as_array()
                .expect("a list")
                .iter()
                .find(|s| s["name"] == "PUSH0_TASKS");
            let tasks = tasks.map(|s| s["messages"].clone());
            if tasks == Some(0.into()) {
                Ok(())
            } else {
                Err(format!("{tasks:?}"))
            }
        },
    )
    .await;
}
