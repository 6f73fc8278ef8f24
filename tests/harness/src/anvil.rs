//! A development chain: anvil, the Ethereum node of Foundry.

use crate::{
    child::{self, Child, Spec},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{ffi::OsString, time::Duration};
use tempfile::TempDir;

/// A running anvil on a free loopback port. Dropping the value kills the process.
#[derive(Debug)]
pub struct Anvil {
    child: Child,
    url: String,
    http: reqwest::Client,
    _folder: TempDir,
}

impl Anvil {
    /// Starts a chain that mines a block every `block_time` (whole seconds), or on demand if `None`.
    ///
    /// # Panics
    /// Anvil is not installed or does not start.
    pub async fn start(block_time: Option<Duration>) -> Self {
        match block_time {
            Some(time) => Self::launch(&["--block-time", &time.as_secs().max(1).to_string()]).await,
            None => Self::launch(&["--no-mining"]).await,
        }
    }

    /// Starts a chain of `blocks` blocks without stored history. Mining thousands of blocks would take
    /// minutes with stored states and with forks after Cancun, which write each block's hash into the state.
    ///
    /// # Panics
    /// Anvil is not installed or does not start.
    pub async fn of_blocks(blocks: u64) -> Self {
        let anvil = Self::launch(&["--no-mining", "--prune-history", "--hardfork", "cancun"]).await;
        anvil.mine(blocks).await;
        anvil
    }

    async fn launch(more: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        let mut args: Vec<OsString> = ["--host", "127.0.0.1", "--port", "0"].map(OsString::from).into();
        args.extend(more.iter().map(OsString::from));
        let spec = Spec {
            program: child::tool("ANVIL", "anvil"),
            args,
            env: Vec::new(),
            log: folder.path().join("log"),
        };
        let child = Child::spawn(&spec).unwrap_or_else(|e| panic!("{}: {e}", spec.program.display()));
        let address = async || {
            let log = child.log();
            let found = log.lines().find_map(|line| line.strip_prefix("Listening on "));
            found.map(|address| address.trim().to_owned())
        };
        let Ok(address) = wait::look(Duration::from_secs(20), address).await else {
            panic!("anvil does not listen; its log ends:\n{}", child.tail());
        };
        Self {
            child,
            url: format!("http://{address}"),
            http: reqwest::Client::new(),
            _folder: folder,
        }
    }

    /// Returns the URL of the JSON-RPC endpoint.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Calls a method and returns its result.
    ///
    /// # Panics
    /// The node does not answer, or answers with an error.
    pub async fn rpc(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = async {
            self.http
                .post(&self.url)
                .json(&body)
                .send()
                .await?
                .json::<Value>()
                .await
        };
        match answer.await {
            Ok(answer) if answer.get("error").is_none() => answer.get("result").cloned().unwrap_or_default(),
            Ok(answer) => panic!("{method}: {answer}"),
            Err(error) => panic!("{method}: {error}"),
        }
    }

    /// Mines `blocks` blocks now.
    pub async fn mine(&self, blocks: u64) {
        self.rpc("anvil_mine", json!([format!("{blocks:#x}")])).await;
    }

    /// Replaces the newest `depth` blocks by the same number of other blocks.
    pub async fn reorg(&self, depth: u64) {
        self.rpc("anvil_reorg", json!([depth, []])).await;
    }

    /// Returns the number of the newest block.
    pub async fn head(&self) -> u64 {
        let head = self.rpc("eth_blockNumber", json!([])).await;
        let digits = head.as_str().and_then(|head| head.strip_prefix("0x"));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.unwrap_or_else(|| panic!("eth_blockNumber: {head}"))
    }

    /// Kills the node with SIGKILL.
    pub fn kill(&self) {
        self.child.kill();
    }

    /// Sends SIGSTOP: the port stays open and requests get no answer.
    pub fn pause(&self) {
        self.child.signal(Signal::SIGSTOP);
    }

    /// Sends SIGCONT to a paused node.
    pub fn resume(&self) {
        self.child.signal(Signal::SIGCONT);
    }
}
