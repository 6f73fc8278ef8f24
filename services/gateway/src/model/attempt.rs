//! One attempt: how far it is, and how it ended.

use push0_domain::{
    ProofType, ProverId, StageName, Timestamp, ZkvmId,
    message::{Failure, FailureClass, TaskResult},
    subject::AttemptKey,
};

/// An attempt within its block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) proof: ProofType,
    pub(crate) stage: StageName,
    pub(crate) index: u32,
    pub(crate) number: u32,
}

impl Place {
    pub(super) fn of(key: &AttemptKey) -> Self {
        Self {
            proof: key.proof_type.clone(),
            stage: key.stage.clone(),
            index: key.index,
            number: key.attempt,
        }
    }
}

/// An attempt as far as messages told of it.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) zkvm: ZkvmId,
    pub(crate) state: State,
    pub(crate) prover: Option<ProverId>,
    pub(crate) hedge_of: Option<u32>,
    pub(crate) released_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) proved_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) prove_us: u64,
    pub(crate) transfer_us: u64,
    pub(crate) verify_us: Option<u64>,
    pub(crate) verifier: Option<ProverId>,
    pub(crate) failure: Option<Failure>,
    pub(crate) progress: Option<u16>,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Released,
    Running,
    Checking,
    Done,
    Failed(FailureClass),
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Running => "running",
            Self::Checking => "checking",
            Self::Done => "done",
            Self::Failed(class) => super::fleet::outcome_of(class),
        }
    }

    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed(_))
    }
}

impl Attempt {
    pub(super) fn new(zkvm: ZkvmId) -> Self {
        Self {
            zkvm,
            state: State::Released,
            prover: None,
            hedge_of: None,
            released_at: None,
            started_at: None,
            proved_at: None,
            ended_at: None,
            prove_us: 0,
            transfer_us: 0,
            verify_us: None,
            verifier: None,
            failure: None,
            progress: None,
        }
    }

    pub(crate) fn is_checking(&self) -> bool {
        self.state == State::Checking
    }

    /// Takes over times and names from a result, which is told after the attempt ended.
    fn take(&mut self, result: &TaskResult, now: Timestamp) {
        self.prover = Some(result.prover.clone());
        self.hedge_of = result.header.hedge_of;
        (self.prove_us, self.transfer_us) = (result.prove_us, result.transfer_us);
        let took = std::time::Duration::from_micros(result.prove_us.saturating_add(result.transfer_us));
        self.started_at.get_or_insert(now.minus(took));
        self.proved_at.get_or_insert(now);
        self.progress = None;
        if let Some(verdict) = &result.verdict {
            self.verify_us = Some(verdict.verify_us);
            self.verifier = Some(verdict.verifier.clone());
        }
    }

    pub(crate) fn complete(&mut self, result: &TaskResult, is_final: bool, now: Timestamp) {
        if self.state.is_over() {
            return;
        }
        self.take(result, now);
        let invalid = result
            .verdict
            .as_ref()
            .and_then(|verdict| verdict.invalid.clone());
        self.state = match (invalid, is_final) {
            (Some(reason), _) => {
                self.failure = Some(Failure::new(FailureClass::InvalidProof, reason));
                State::Failed(FailureClass::InvalidProof)
            }
            (None, true) => State::Done,
            (None, false) => State::Checking,
        };
        if is_final {
            self.ended_at = Some(now);
        }
    }

    pub(crate) fn fail(&mut self, result: &TaskResult, failure: &Failure, now: Timestamp) {
        if self.state == State::Done {
            return;
        }
        self.take(result, now);
        self.failure = Some(failure.clone());
        self.state = State::Failed(failure.class);
        self.ended_at = Some(now);
    }

    /// Returns whether the attempt may be forgotten before others of its block: a smaller number goes first. Only the
    /// dispatcher releases attempts, so those that it did not release may be made up.
    pub(super) fn rank(&self) -> u8 {
        match (self.released_at.is_some(), self.state) {
            (false, _) => 0,
            (true, State::Done) => 1,
            (true, State::Failed(_)) => 2,
            (true, State::Released) => 3,
            (true, State::Checking) => 4,
            (true, State::Running) => 5,
        }
    }

    pub(super) fn progress(&self) -> Option<f64> {
        self.progress.map(|permille| f64::from(permille) / 1000.0)
    }
}
