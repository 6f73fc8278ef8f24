//! The key with which this process signs its results: the key that it signs in with.

use nkeys::KeyPair;
use push0_domain::signature::Signature;
use std::fmt;

/// Signs the results of this process.
pub(crate) struct Signer {
    pair: KeyPair,
    word: Option<String>,
}

impl Signer {
    /// Takes the seed of the process's key, and the word of its fleet for the key. Fails with a reason if `seed` is not a
    /// seed.
    pub(crate) fn new(seed: &str, word: Option<String>) -> Result<Self, String> {
        let pair = KeyPair::from_seed(seed.trim()).map_err(|e| e.to_string())?;
        Ok(Self { pair, word })
    }

    /// Signs a statement.
    pub(crate) fn sign(&self, statement: &str) -> Option<Signature> {
        // Only a pair without its seed cannot sign.
        let bytes = self.pair.sign(statement.as_bytes()).ok()?;
        Some(Signature {
            key: self.pair.public_key(),
            word: self.word.clone(),
            bytes,
        })
    }
}

// The seed stays out of logs.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.pair.public_key())
    }
}
