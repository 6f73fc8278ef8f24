//! The JSON-RPC methods used of an Ethereum node, with limits on time and size.

use super::{
    answer::{AnswerLimits, ClientError},
    block::{self, FetchedBlock},
    client::Client,
    number::Number,
    patiences::{Patiences, Work},
};
use bytes::Bytes;
use push0_domain::pipeline::HashRule;
use push0_runtime::metrics::IntCounter;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::time::Instant;
use tokio::sync::OnceCell;
use url::Url;

/// Longest part of a node's message that is shown, in characters.
const WORDS_MAX: usize = 200;
/// Error code of a node that received too many requests (EIP-1474).
const LIMIT_EXCEEDED: i64 = -32005;

/// Reasons why a request failed. All are retried, and no message contains the URL.
#[derive(Debug, thiserror::Error)]
pub(super) enum RpcError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("too many requests for this node")]
    RateLimited,
    #[error("answered with error {code}: {message}")]
    Refused { code: i64, message: String },
    #[error("a nonsense answer: {0}")]
    Nonsense(String),
    #[error("has no newest block")]
    NoHead,
    #[error(
        "has no block {number}, although its newest block is not below: a node that keeps old blocks is needed"
    )]
    NoBlock { number: u64 },
    #[error(
        "serves the chain {found}, but {of} serves the chain {expected}: all URLs of a source must lead to nodes of one \
         chain"
    )]
    OtherChain {
        found: String,
        expected: String,
        of: String,
    },
}

impl RpcError {
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self, Self::Client(ClientError::TooLarge(_)))
    }

    /// Returns whether the node, or a gateway before the node, does not know the method or does not permit it.
    fn refuses_the_question(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. } | Self::Client(ClientError::Status(400 | 403 | 404 | 405 | 501, _))
        )
    }
}

/// An Ethereum node, with its URL in loggable form.
pub(super) struct Rpc {
    client: Client,
    hash: HashRule,
    patience: Patiences,
    answer_max: usize,
    shown: String,
    secrets: Vec<String>,
    chain: OnceCell<Option<String>>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    #[serde(default)]
    message: String,
}

impl Rpc {
    /// Creates a client of the node at this URL; `opened` counts its connections. The error does not
    /// repeat the URL.
    pub(super) fn new(
        url: &str,
        limits: AnswerLimits,
        hash: HashRule,
        opened: IntCounter,
    ) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("source.rpc_url: {error}");
        let url: Url = url.parse().map_err(|error| wrong(&error))?;
        let port = url.port().map_or(String::new(), |port| format!(":{port}"));
        Ok(Self {
            client: Client::new(&url, opened).map_err(|error| wrong(&error))?,
            hash,
            patience: Patiences::new(limits.timeout),
            answer_max: limits.bytes,
            shown: format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default()),
            secrets: secrets(&url),
            chain: OnceCell::new(),
        })
    }

    /// Returns the node's address in the form allowed in logs: scheme, host and port.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Returns whether the node was slow of late, and is better asked one thing at a time.
    pub(super) fn is_strained(&self) -> bool {
        self.patience.are_strained()
    }

    /// Requests a block and verifies its hash. Returns `None` if the node does not have the block. With
    /// `full`, the block includes its JSON. At most `answer_max` bytes of the answer are read.
    pub(super) async fn block(
        &self,
        number: Number,
        full: bool,
        answer_max: usize,
    ) -> Result<Option<FetchedBlock>, RpcError> {
        let asked = match number {
            Number::Latest => "latest".to_owned(),
            Number::At(number) => format!("{number:#x}"),
        };
        let work = if full { Work::Full } else { Work::Light };
        let called = self.call("eth_getBlockByNumber", json!([asked, full]), work, answer_max);
        let Some(json) = called.await? else {
            return Ok(None);
        };
        let checked = block::check(number, full, self.hash, json);
        checked
            .map(Some)
            .map_err(|reason| RpcError::Nonsense(self.without_secrets(&reason)))
    }

    /// Asks the node whether it still syncs. A node that refuses the question is taken to say no.
    pub(super) async fn syncs(&self) -> Result<bool, RpcError> {
        let called = self.call("eth_syncing", json!([]), Work::Light, self.answer_max);
        match called.await {
            // The answer is `false`, or an object that describes the progress.
            Ok(answer) => Ok(answer.is_some_and(|json| &json[..] != b"false")),
            Err(error) if error.refuses_the_question() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks the node once for the id of its chain, `0x` and hex digits. Returns `None` if the node does not tell.
    pub(super) async fn chain(&self) -> Result<Option<&str>, RpcError> {
        let ask = async || {
            let called = self.call("eth_chainId", json!([]), Work::Light, self.answer_max);
            match called.await {
                Ok(answer) => Ok(answer.and_then(|json| serde_json::from_slice::<String>(&json).ok())),
                Err(error) if error.refuses_the_question() => Ok(None),
                Err(error) => Err(error),
            }
        };
        let chain = self.chain.get_or_try_init(ask).await?;
        Ok(chain.as_deref())
    }

    /// Calls a method and returns the JSON of its result, a slice of the answer; `None` for `null`.
    async fn call(
        &self,
        method: &str,
        params: Value,
        work: Work,
        answer_max: usize,
    ) -> Result<Option<Bytes>, RpcError> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let limit = self.patience.limit(work);
        let began = Instant::now();
        let posted = self.client.post(request.to_string(), answer_max, limit).await;
        match &posted {
            Ok(_) => self.patience.answered(work, began.elapsed()),
            Err(ClientError::Timeout(limit)) => self.patience.timed_out(work, *limit),
            Err(_) => {}
        }
        let body = match posted {
            Err(ClientError::Status(429, _)) => return Err(RpcError::RateLimited),
            // Some gateways send the node's refusal with the status of a failure.
            Err(ClientError::Status(code, body)) if is_refusal(code, &body) => body,
            Err(ClientError::Unreachable(reason)) => {
                return Err(ClientError::Unreachable(self.without_secrets(&reason)).into());
            }
            body => body?,
        };
        let malformed = |error: serde_json::Error| RpcError::Nonsense(format!("not JSON-RPC: {error}"));
        let answer: Answer<'_> = serde_json::from_slice(&body).map_err(malformed)?;
        match (answer.result, answer.error) {
            (_, Some(refusal)) if refusal.code == LIMIT_EXCEEDED => Err(RpcError::RateLimited),
            (_, Some(Refusal { code, message })) => {
                let message = self.without_secrets(&message);
                Err(RpcError::Refused { code, message })
            }
            // `"result": null` is parsed as `None` too.
            (None, None) => Ok(None),
            (Some(result), None) if result.get() == "null" => Ok(None),
            (Some(result), None) => Ok(Some(body.slice_ref(result.get().as_bytes()))),
        }
    }

    /// Shortens a message of a node or a library, and hides the secrets of the URL.
    fn without_secrets(&self, words: &str) -> String {
        let mut words = words.to_owned();
        for secret in &self.secrets {
            words = words.replace(secret, "***");
        }
        words.chars().take(WORDS_MAX).collect()
    }
}

/// Returns whether an answer with the status of a failure refuses the request in the terms of JSON-RPC. The status 401
/// speaks of the key.
fn is_refusal(code: u16, body: &[u8]) -> bool {
    let says = |answer: Answer<'_>| answer.error.is_some();
    (400..500).contains(&code) && code != 401 && serde_json::from_slice(body).is_ok_and(says)
}

/// Returns the secret parts of a URL: user, password, and every part of path and query long enough to
/// be a key.
fn secrets(url: &Url) -> Vec<String> {
    const KEY_LEN_MIN: usize = 8;
    let parts = url
        .path()
        .split('/')
        .chain(url.query().unwrap_or_default().split(['&', '=']));
    let mut secrets: Vec<String> = parts
        .filter(|part| part.len() >= KEY_LEN_MIN)
        .map(str::to_owned)
        .collect();
    secrets.extend(url.password().map(str::to_owned));
    secrets.extend(
        Some(url.username())
            .filter(|user| !user.is_empty())
            .map(str::to_owned),
    );
    // The longest secret is replaced first, because replacing a shorter one inside would leave
    // the rest visible.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(url: &str) -> Result<Rpc, String> {
        let opened = IntCounter::new("opened", "Connections opened.").expect("a counter");
        let limits = AnswerLimits {
            timeout: std::time::Duration::from_secs(5),
            bytes: 1024,
        };
        Rpc::new(url, limits, HashRule::Header, opened)
    }

    #[test]
    fn a_refusal_in_json_counts_whatever_its_status_is() {
        let refused = br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"not here"}}"#;
        assert!(is_refusal(405, refused) && is_refusal(400, refused));
        assert!(!is_refusal(401, refused) && !is_refusal(502, refused));
        assert!(!is_refusal(404, b"<html>") && !is_refusal(404, b"{}"));
    }

    #[test]
    fn a_key_in_the_url_is_never_shown() {
        for url in [
            "https://user:hunter22@node.example/",
            "https://node.example:8545/v3/0123456789abcdef",
            "https://node.example/?token=0123456789abcdef",
        ] {
            let rpc = rpc(url).expect("a URL");
            assert!(rpc.shown().starts_with("https://node.example"), "{}", rpc.shown());
            let said = rpc.without_secrets("bad key 0123456789abcdef of user with hunter22");
            let hidden = rpc.secrets.iter().all(|secret| !said.contains(secret.as_str()));
            assert!(hidden && !rpc.secrets.is_empty(), "{said}");
        }
        let error = rpc("https://bad host/0123456789abcdef");
        let error = error.err().expect("not a URL");
        assert!(!error.contains("0123456789abcdef"), "{error}");
    }
}
