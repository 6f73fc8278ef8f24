//! Enrolment: the proof of a replica of a fleet that it may take part, and its name.
//!
//! A replica draws a key of its own at each start. The credential of its fleet signs the public half, and the replica
//! signs in with its own key and this word. Its name follows from its key, so no replica can take the name of another.

use crate::{Book, Member};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use nkeys::KeyPair;
use push0_domain::ProverId;

pub use crate::name::{NAME_TAIL, name_of};

/// The text that a credential signs, before the public key of the replica.
const PURPOSE: &str = "push0-enrol-v1:";

/// A replica that may not sign in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The client shows no word of a credential, or one of another form.
    #[error("the client shows no enrolment")]
    NoWord,
    /// The credential is not in the book: it was revoked or rotated, or is of another deployment.
    #[error("no fleet has the credential {0}")]
    UnknownCredential(String),
    /// The signature of the credential or of the replica is wrong.
    #[error("a signature is wrong")]
    WrongSignature,
    /// The name of the replica was revoked.
    #[error("{0} was revoked")]
    Revoked(ProverId),
}

/// A replica's own key, and its fleet's word for it.
#[derive(Clone)]
pub struct Enrolment {
    /// The seed of the replica's key, drawn for this start.
    pub seed: String,
    /// The public half of the replica's key.
    pub key: String,
    /// The credential's word, shown to the broker as a token.
    pub word: String,
}

// The seed stays out of logs.
impl std::fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Enrolment({})", self.key)
    }
}

/// Draws the key of a replica, and has it signed by the credential of the fleet. Fails with a reason if `credential` is
/// not the seed of a credential.
pub fn enrol(credential: &str) -> Result<Enrolment, String> {
    let pair = KeyPair::from_seed(credential.trim()).map_err(|e| e.to_string())?;
    let (seed, key) = Book::draw(false);
    let signed = pair
        .sign(format!("{PURPOSE}{key}").as_bytes())
        .map_err(|e| e.to_string())?;
    let word = format!("{}.{}", pair.public_key(), BASE64.encode(signed));
    Ok(Enrolment { seed, key, word })
}

/// Decides about a replica that shows `word` and has signed `nonce` with the key `key`. Returns its name and its fleet.
pub(crate) fn decide<'a>(
    book: &'a Book,
    word: &str,
    key: &str,
    nonce: &str,
    signature: &str,
) -> Result<(ProverId, &'a Member), Refused> {
    let admitted = replica(book, word, key)?;
    verify(key, nonce.as_bytes(), signature)?;
    Ok(admitted)
}

/// Returns the name and the fleet of the replica with the key `key`, for which `word` is the word of its fleet.
pub(crate) fn replica<'a>(book: &'a Book, word: &str, key: &str) -> Result<(ProverId, &'a Member), Refused> {
    let word = word
        .split_once('.')
        .filter(|(credential, _)| is_of_a_key(credential));
    let (credential, signed) = word.ok_or(Refused::NoWord)?;
    let fleet = book
        .members
        .values()
        .find(|member| member.fleet && member.key == credential);
    let fleet = fleet.ok_or_else(|| Refused::UnknownCredential(credential.to_owned()))?;
    verify(credential, format!("{PURPOSE}{key}").as_bytes(), signed)?;
    let name = name_of(&fleet.zkvm, key).map_err(|_| Refused::WrongSignature)?;
    if book.revoked.contains(&name) || book.members.contains_key(&name) {
        return Err(Refused::Revoked(name));
    }
    Ok((name, fleet))
}

/// Returns whether a text may be a public key. Any client chooses its word, which goes into the logs of enroller and
/// broker.
fn is_of_a_key(text: &str) -> bool {
    text.len() == 56 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn verify(key: &str, said: &[u8], signature: &str) -> Result<(), Refused> {
    let pair = KeyPair::from_public_key(key).map_err(|_| Refused::WrongSignature)?;
    if pair.key_pair_type() != nkeys::KeyPairType::User {
        return Err(Refused::WrongSignature);
    }
    // The broker passes signatures on in either alphabet of base64, with or without padding.
    let plain = signature
        .trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_");
    let signature = BASE64.decode(plain).map_err(|_| Refused::WrongSignature)?;
    pair.verify(said, &signature).map_err(|_| Refused::WrongSignature)
}
