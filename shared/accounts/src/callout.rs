//! The broker's question about a client that it does not know, and the answer, both as JWTs.
//!
//! The form is that of the auth callout of nats-server (NATS ADR-26). The answer names the account of the client and
//! its permissions, and is signed with the issuer's key.

use crate::{
    Book,
    broker::account_of,
    enrol::{self, Refused},
    rights::{Rights, rights_of_member},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use nkeys::KeyPair;
use push0_domain::{ProverId, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

/// A question or an answer that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CalloutError {
    /// The question is not a JWT of the expected form.
    #[error("the broker's question cannot be read: {0}")]
    Unreadable(String),
    /// The issuer's seed signs nothing.
    #[error("the issuer's key cannot sign: {0}")]
    Key(#[from] nkeys::error::Error),
}

/// The broker's question about one client.
#[derive(Clone, Debug)]
pub struct Request {
    /// The id of the server that asks; only this server takes the answer.
    server: String,
    /// The key that the server drew for the client; the answer is about this key.
    client: String,
    key: String,
    word: String,
    nonce: String,
    signature: String,
}

#[derive(Deserialize)]
struct Claims {
    nats: Asked,
}

#[derive(Deserialize)]
struct Asked {
    server_id: Server,
    user_nkey: String,
    client_info: Client,
    connect_opts: Shown,
}

#[derive(Deserialize)]
struct Server {
    id: String,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Client {
    nonce: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Shown {
    nkey: String,
    sig: String,
    auth_token: String,
}

impl Request {
    /// Reads a question. Its signature is not checked: only the broker reaches the subject of questions, and the answer
    /// says nothing that the asker could not know.
    pub fn read(text: &[u8]) -> Result<Self, CalloutError> {
        let unreadable = |reason: &str| CalloutError::Unreadable(reason.to_owned());
        let text = std::str::from_utf8(text).map_err(|_| unreadable("it is not text"))?;
        let claims = text.split('.').nth(1).ok_or_else(|| unreadable("it is no JWT"))?;
        let claims = BASE64
            .decode(claims)
            .map_err(|_| unreadable("its claims are not base64"))?;
        let Claims { nats } = serde_json::from_slice(&claims).map_err(|e| unreadable(&e.to_string()))?;
        Ok(Self {
            server: nats.server_id.id,
            client: nats.user_nkey,
            key: nats.connect_opts.nkey,
            word: nats.connect_opts.auth_token,
            nonce: nats.client_info.nonce,
            signature: nats.connect_opts.sig,
        })
    }

    /// Returns the public key that the client signed in with, for logs.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Decides about the client.
    pub fn decide(&self, book: &Book) -> Result<Admitted, Refused> {
        let decided = enrol::decide(book, &self.word, &self.key, &self.nonce, &self.signature);
        decided.map(|(name, fleet)| Admitted {
            rights: rights_of_member(fleet.role, &fleet.zkvm, &name, &self.key),
            account: account_of(fleet.role, &fleet.zkvm),
            name,
        })
    }
}

/// A replica that may sign in.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The name of the replica.
    pub name: ProverId,
    account: String,
    rights: Rights,
}

/// Returns the answer that admits a client under its name, with the rights of this name alone. `issuer` is the seed of the
/// key that the broker's configuration names.
pub fn admit(
    request: &Request,
    admitted: &Admitted,
    issuer: &str,
    now: Timestamp,
) -> Result<String, CalloutError> {
    let Admitted {
        name,
        account,
        rights,
    } = admitted;
    let user = json!({
        "pub": { "allow": rights.publish }, "sub": { "allow": rights.subscribe },
        "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2,
    });
    // The broker shows the name of the user in place of its key, in its log and in its monitoring.
    let mut claims = json!({ "sub": request.client, "aud": account, "nats": user });
    claims["name"] = json!(name.as_str());
    let user = sign(claims, issuer, now)?;
    answer(request, json!({ "jwt": user }), issuer, now)
}

/// Checks the issuer's seed, as [`admit`] and [`refuse`] take it. Fails if the text is no seed.
pub fn check_issuer(issuer: &str) -> Result<(), CalloutError> {
    Ok(KeyPair::from_seed(issuer.trim()).map(drop)?)
}

/// Returns the answer that refuses a client, with a reason for the broker's log.
pub fn refuse(request: &Request, reason: &str, issuer: &str, now: Timestamp) -> Result<String, CalloutError> {
    answer(request, json!({ "error": reason }), issuer, now)
}

fn answer(request: &Request, mut said: Value, issuer: &str, now: Timestamp) -> Result<String, CalloutError> {
    said["type"] = json!("authorization_response");
    said["version"] = json!(2);
    sign(
        json!({ "sub": request.client, "aud": request.server, "nats": said }),
        issuer,
        now,
    )
}

fn sign(mut claims: Value, issuer: &str, now: Timestamp) -> Result<String, CalloutError> {
    let pair = KeyPair::from_seed(issuer.trim())?;
    claims["iss"] = json!(pair.public_key());
    claims["iat"] = json!(now.0 / 1_000_000);
    let part = |value: &Value| BASE64.encode(value.to_string());
    let head = part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let said = format!("{head}.{}", part(&claims));
    let signature = BASE64.encode(pair.sign(said.as_bytes())?);
    Ok(format!("{said}.{signature}"))
}
