//! Decides whether a report of a prover, a verifier or the watchdog is to be believed.
//!
//! The subject tells who speaks, because the permissions of a participant fix its tokens. The sealed header tells the
//! release: the attempt, its pipeline's revision, its parent, its limits. So a body only tells how the attempt ended.
//!
//! | report | its speaker |
//! |---|---|
//! | result | the prover of the attempt; or the watchdog, for a prover that cannot report a failure itself |
//! | check | the prover of the attempt |
//! | verdict | the verifier, which alone may give one |
//!
//! A failure carries the inputs of its task for the next attempt, and so does a check, because its verdict may be a
//! failure. The seal binds them, so that no prover can hand other inputs on.
//!
//! The subject of a check or a result also names the prover's public key, where the broker has accounts. The prover signs how
//! its attempt ended, and the record carries the signature ([`crate::signature`]).
//!
//! The subject of a verdict names the verifier and not the prover. The verifier binds the prover: it works for a check
//! only if the check's subject names the prover of its body, and copies that name into the verdict.

use crate::{
    message::{FailureClass, Lease, Outcome, SLOTS_MAX, TaskHeader, TaskResult},
    seal_keys::SealKeys,
    subject::{self, Kind, Report},
};
use std::collections::HashSet;

/// Why a report changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The subject names no attempt.
    Subject,
    /// The body cannot be read.
    Unreadable,
    /// The subject names another attempt than the body, or another zkVM.
    Attempt,
    /// The subject names another speaker than the body, or one that may not say this.
    Speaker,
    /// The dispatcher did not write the header.
    Seal,
    /// The message is too large, or has too many entries.
    Size,
    /// A lease lists an attempt twice, or a check is about an attempt that has its verdict.
    Repeated,
    /// A failure or a check does not carry the inputs of its task, so no other attempt could be made from it.
    Inputs,
    /// The prover did not sign the report with the key that its subject names.
    Signature,
}

impl Refusal {
    /// Returns the name of the reason in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Unreadable => "unreadable",
            Self::Attempt => "attempt",
            Self::Speaker => "speaker",
            Self::Seal => "seal",
            Self::Size => "size",
            Self::Repeated => "repeated",
            Self::Inputs => "inputs",
            Self::Signature => "signature",
        }
    }
}

/// Decides whether to believe a report of the kind `kind`. Returns its subject's tokens.
pub fn admit(subject: &str, kind: Kind, result: &TaskResult, keys: &SealKeys) -> Result<Report, Refusal> {
    let report = admit_unsealed(subject, kind, result)?;
    if keys.verify(&result.header) {
        Ok(report)
    } else {
        Err(Refusal::Seal)
    }
}

/// Decides as [`admit`] does, but for the seal of the header: verifiers and the gateway may not read the keys. The readers
/// of a verdict check the seal, and nothing rests on the gateway.
pub fn admit_unsealed(subject: &str, kind: Kind, result: &TaskResult) -> Result<Report, Refusal> {
    let report = Report::parse(subject, kind).map_err(|_| Refusal::Subject)?;
    let header = &result.header;
    if report.attempt != header.key() {
        return Err(Refusal::Attempt);
    }
    let speaker = report.speaker.as_ref();
    let may_say = match (kind, &result.outcome, &result.verdict) {
        (Kind::Check, Outcome::Completed { .. }, None) => header.check && speaker == Some(&result.prover),
        (Kind::Result, Outcome::Failed(_), None) => speaker.is_none_or(|prover| *prover == result.prover),
        (Kind::Result, Outcome::Completed { .. }, None) => speaker == Some(&result.prover),
        (Kind::Verdict, Outcome::Completed { .. }, Some(verdict)) => {
            header.check && speaker == Some(&verdict.verifier)
        }
        // The outputs are lost, so no verifier can give a verdict.
        (Kind::Verdict, Outcome::Failed(failure), None) => {
            header.check && failure.class == FailureClass::Surroundings
        }
        _ => false,
    };
    if !may_say {
        return Err(Refusal::Speaker);
    }
    if has_wrong_inputs(result, kind, speaker.is_some()) {
        return Err(Refusal::Inputs);
    }
    Ok(report)
}

/// Decides whether the prover of an admitted report signed how its attempt ended. Costs some 50 µs for a signature.
///
/// The broker fixes the key in the subject of a check or a result by the permissions of its sender, so a signature of that
/// key is the prover's. A verdict carries the signature of its check, which the verifier has compared with the check's
/// subject. A failure that a verifier or the watchdog reports is not the prover's word and has no signature.
pub fn admit_signature(report: &Report, kind: Kind, result: &TaskResult) -> Result<(), Refusal> {
    let signature = result.signature.as_ref();
    let is_of_speaker = match kind {
        Kind::Check | Kind::Result => signature.map(|signature| &signature.key) == report.key.as_ref(),
        Kind::Verdict => matches!(result.outcome, Outcome::Completed { .. }) || signature.is_none(),
        _ => false,
    };
    if is_of_speaker && signature.is_none_or(|signature| signature.verifies(&result.statement())) {
        Ok(())
    } else {
        Err(Refusal::Signature)
    }
}

/// Returns whether a report carries other inputs than its task had, or none although another attempt needs them. The
/// watchdog reads inputs from the stored task.
fn has_wrong_inputs(result: &TaskResult, kind: Kind, is_participant: bool) -> bool {
    let is_invalid = result
        .verdict
        .as_ref()
        .is_some_and(|verdict| verdict.invalid.is_some());
    let is_needed = kind == Kind::Check || result.failure().is_some() || is_invalid;
    match &result.inputs {
        None => is_participant && is_needed,
        Some(inputs) => !result.header.seal.binds(inputs),
    }
}

/// Most deliveries that a lease may list, however many slots it tells of.
pub const HELD_MAX: usize = 4096;

/// Returns how many deliveries a process of so many slots may hold: adapters bound theirs to less.
fn held_max(slots: u32) -> usize {
    (slots as usize)
        .saturating_mul(8)
        .saturating_add(64)
        .min(HELD_MAX)
}

/// The deliveries that were dropped from a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Deliveries that the dispatcher did not release to the zkVM of the sender.
    pub unsealed: usize,
    /// Deliveries of an attempt that the lease lists already. A process may have one twice, which says nothing more.
    pub repeated: usize,
}

/// Returns whether a lease lists no more deliveries than its sender can hold. This costs no look at them.
pub fn fits(lease: &Lease) -> bool {
    lease.slots <= SLOTS_MAX && lease.ahead <= SLOTS_MAX && lease.held.len() <= held_max(lease.slots)
}

/// Decides whether to believe a lease, and drops the deliveries in it that are not to be believed or are there twice.
pub fn admit_lease(subject: &str, lease: &mut Lease, keys: &SealKeys) -> Result<Dropped, Refusal> {
    admit_held(subject, lease, |header| keys.verify(header))
}

/// Decides as [`admit_lease`] does, but for the seals of the deliveries: the gateway may not read the keys.
pub fn admit_lease_unsealed(subject: &str, lease: &mut Lease) -> Result<Dropped, Refusal> {
    admit_held(subject, lease, |_| true)
}

fn admit_held(
    subject: &str,
    lease: &mut Lease,
    is_sealed: impl Fn(&TaskHeader) -> bool,
) -> Result<Dropped, Refusal> {
    let sender = subject::sender_of_lease(subject).ok_or(Refusal::Subject)?;
    if sender != lease.sender() {
        return Err(Refusal::Speaker);
    }
    if !fits(lease) {
        return Err(Refusal::Size);
    }
    let (mut dropped, mut listed) = (Dropped::default(), HashSet::new());
    lease.held.retain(|held| {
        let is_released = held.header.zkvm == sender.zkvm && is_sealed(&held.header);
        // A seal fits one header only.
        let is_first = is_released && listed.insert(held.header.seal);
        dropped.unsealed += usize::from(!is_released);
        dropped.repeated += usize::from(is_released && !is_first);
        is_first
    });
    Ok(dropped)
}
