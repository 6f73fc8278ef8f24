//! The client.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use nkeys::KeyPair;
use serde_json::json;
use std::{collections::VecDeque, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

/// How long the broker may take for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// A message that came to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The subject of the message.
    pub subject: String,
    /// The subject on which its sender wants an answer; empty if none.
    pub reply: String,
    /// The headers with the status line; empty if there are none.
    pub headers: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Heard {
    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection to one broker.
pub struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    heard: VecDeque<Heard>,
    refused: Vec<String>,
    key: String,
    subscriptions: u32,
}

impl Client {
    /// Signs in with a key, and with the word of a fleet if the key is that of a replica. Returns the broker's refusal if
    /// it does not take the client.
    ///
    /// # Panics
    /// The broker does not answer.
    pub async fn connect(url: &str, seed: &str, word: Option<&str>) -> Result<Self, String> {
        let address = url.strip_prefix("nats://").expect("a URL");
        let stream = TcpStream::connect(address).await.expect("a broker that listens");
        // Without it, a message may wait for the acknowledgement of the one before.
        stream.set_nodelay(true).expect("a connection");
        let (reader, writer) = stream.into_split();
        let pair = KeyPair::from_seed(seed.trim()).expect("a seed");
        let mut client = Self {
            reader: BufReader::new(reader),
            writer,
            heard: VecDeque::new(),
            refused: Vec::new(),
            key: pair.public_key(),
            subscriptions: 0,
        };
        let info = client.line().await.ok_or("the broker hangs up")?;
        let info: serde_json::Value =
            serde_json::from_str(info.strip_prefix("INFO ").expect("the broker begins")).expect("JSON");
        let nonce = info["nonce"].as_str().unwrap_or_default();
        let signature = BASE64.encode(pair.sign(nonce.as_bytes()).expect("a key that signs"));
        let mut hello = json!({
            "verbose": false, "pedantic": false, "headers": true, "no_responders": true, "lang": "hostile",
            "version": "1", "protocol": 1, "nkey": client.key, "sig": signature,
        });
        if let Some(word) = word {
            hello["auth_token"] = json!(word);
        }
        client.send(format!("CONNECT {hello}\r\n").as_bytes()).await;
        match client.settle().await {
            true => Ok(client),
            false => Err(client.refused.join("; ")),
        }
    }

    /// Returns a subject of the client's own inbox.
    pub fn inbox(&self) -> String {
        format!("_INBOX_{}.{:x}", self.key, self.subscriptions)
    }

    /// Publishes, and returns the broker's refusals. `reply` and `headers` may be empty.
    pub async fn publish(
        &mut self,
        subject: &str,
        reply: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Vec<String> {
        let mut message = Vec::new();
        if headers.is_empty() {
            message.extend(format!("PUB {subject} {reply} {}\r\n", body.len()).bytes());
        } else {
            let lines: String = headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}\r\n"))
                .collect();
            let head = format!("NATS/1.0\r\n{lines}\r\n");
            let (head_len, len) = (head.len(), head.len() + body.len());
            message.extend(format!("HPUB {subject} {reply} {head_len} {len}\r\n{head}").bytes());
        }
        message.extend_from_slice(body);
        message.extend(b"\r\n");
        self.send(&message).await;
        self.refusals().await
    }

    /// Subscribes, and returns the broker's refusals.
    pub async fn subscribe(&mut self, subject: &str) -> Vec<String> {
        self.subscriptions += 1;
        let line = format!("SUB {subject} {}\r\n", self.subscriptions);
        self.send(line.as_bytes()).await;
        self.refusals().await
    }

    /// Sends a request and returns the first answer that is no refusal of the broker; `None` after `wait`.
    pub async fn request(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        wait: Duration,
    ) -> Option<Heard> {
        let inbox = self.inbox();
        self.subscribe(&inbox).await;
        self.publish(subject, &inbox, headers, body).await;
        self.hear(&inbox, wait).await
    }

    /// Returns the next message on a subject; `None` after `wait`.
    pub async fn hear(&mut self, subject: &str, wait: Duration) -> Option<Heard> {
        let heard = async {
            loop {
                if let Some(at) = self.heard.iter().position(|heard| heard.subject == subject) {
                    return self.heard.remove(at);
                }
                if !self.read().await {
                    return None;
                }
            }
        };
        timeout(wait, heard).await.ok().flatten()
    }

    /// Returns everything that came so far.
    pub async fn drain(&mut self) -> Vec<Heard> {
        self.settle().await;
        self.heard.drain(..).collect()
    }

    /// Returns whether the broker ends the connection.
    pub async fn is_ended(&mut self, wait: Duration) -> bool {
        let ended = async { while self.read().await {} };
        timeout(wait, ended).await.is_ok()
    }

    async fn refusals(&mut self) -> Vec<String> {
        self.settle().await;
        std::mem::take(&mut self.refused)
    }

    /// Waits until the broker has dealt with all that was sent. Returns `false` if the connection ended.
    async fn settle(&mut self) -> bool {
        self.send(b"PING\r\n").await;
        let settled = async {
            loop {
                match self.line().await {
                    None => return false,
                    Some(line) if line == "PONG" => return true,
                    Some(line) => self.take(&line).await,
                }
            }
        };
        timeout(PATIENCE, settled).await.expect("the broker answers")
    }

    async fn read(&mut self) -> bool {
        let Some(line) = self.line().await else {
            return false;
        };
        self.take(&line).await;
        true
    }

    async fn take(&mut self, line: &str) {
        if line == "PING" {
            self.send(b"PONG\r\n").await;
        } else if let Some(error) = line.strip_prefix("-ERR ") {
            self.refused.push(error.to_owned());
        } else if line.starts_with("MSG ") || line.starts_with("HMSG ") {
            let words: Vec<&str> = line.split(' ').collect();
            let has_headers = words[0] == "HMSG";
            // Subject, subscription, perhaps a reply subject, and one or two lengths.
            let lengths = if has_headers { 2 } else { 1 };
            let reply = if words.len() == 3 + lengths + 1 {
                words[3]
            } else {
                ""
            };
            let number = |word: &str| word.parse::<usize>().expect("a length");
            let len = number(words[words.len() - 1]);
            let head = if has_headers {
                number(words[words.len() - 2])
            } else {
                0
            };
            let mut bytes = vec![0; len + 2];
            self.reader.read_exact(&mut bytes).await.expect("a whole message");
            self.heard.push_back(Heard {
                subject: words[1].to_owned(),
                reply: reply.to_owned(),
                headers: String::from_utf8_lossy(&bytes[..head]).into_owned(),
                body: bytes[head..len].to_vec(),
            });
        }
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line).await {
            Ok(1..) => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }

    // A broken connection shows when it is read.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.writer.write_all(bytes).await;
    }
}
