//! Remembers the attempts that this verifier has judged.
//!
//! An attempt has one verdict, whichever proofs its prover offers later. Without this memory, a prover could store one check
//! after another of the same attempt, and each would take as long as a proof to verify, while the checks of others wait.

use push0_domain::{ProverId, message::TaskResult, seal::Seal};
use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

/// Most attempts that are remembered. A repeated check of an older one is verified again.
const REMEMBERED_MAX: usize = 4096;

/// A release, which its seal names, and the prover that had it.
type Key = (Seal, ProverId);

/// The attempts with a verdict of this verifier.
#[derive(Debug, Default)]
pub(crate) struct Judged(Mutex<(HashSet<Key>, VecDeque<Key>)>);

impl Judged {
    /// Returns whether this verifier has stored a verdict on the attempt of a check.
    pub(crate) fn has(&self, check: &TaskResult) -> bool {
        let judged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        judged.0.contains(&key(check))
    }

    /// Notes that a verdict on the attempt is stored.
    pub(crate) fn note(&self, check: &TaskResult) {
        let mut judged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *judged;
        let key = key(check);
        if !known.insert(key.clone()) {
            return;
        }
        order.push_back(key);
        if order.len() > REMEMBERED_MAX
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
    }
}

fn key(check: &TaskResult) -> Key {
    (check.header.seal, check.prover.clone())
}
