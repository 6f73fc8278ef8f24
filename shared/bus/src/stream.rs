//! The streams of a deployment and their names.

/// The streams of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// From ingester to dispatcher: blocks to prove, and blocks no longer wanted.
    Blocks,
    /// From collector and watchdog to dispatcher: stages and attempts ready to run.
    Stages,
    /// From dispatcher to provers: released attempts.
    Tasks,
    /// From provers to verifiers: completed attempts to verify.
    Checks,
    /// From provers, verifiers and watchdog to collector: the results of attempts.
    Results,
    /// From provers and verifiers to watchdog and dispatcher: heartbeats, the newest of each.
    Leases,
    /// From watchdog and operators to provers: orders.
    Control,
    /// From collector to consumers of proofs: one record per block, in order.
    Proofs,
    /// Dead letters, kept until an operator decides.
    Dead,
    /// Events, for dashboards and other observers.
    Events,
}

impl Stream {
    /// Every stream of a deployment.
    pub const ALL: [Self; 10] = [
        Self::Blocks,
        Self::Stages,
        Self::Tasks,
        Self::Checks,
        Self::Results,
        Self::Leases,
        Self::Control,
        Self::Proofs,
        Self::Dead,
        Self::Events,
    ];

    /// Returns the stream's name on the broker.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blocks => "PUSH0_BLOCKS",
            Self::Stages => "PUSH0_STAGES",
            Self::Tasks => "PUSH0_TASKS",
            Self::Checks => "PUSH0_CHECKS",
            Self::Results => "PUSH0_RESULTS",
            Self::Leases => "PUSH0_LEASES",
            Self::Control => "PUSH0_CONTROL",
            Self::Proofs => "PUSH0_PROOFS",
            Self::Dead => "PUSH0_DEAD",
            Self::Events => "PUSH0_EVENTS",
        }
    }

    /// Returns the purpose of the stream, for the broker's own command.
    pub fn description(self) -> &'static str {
        match self {
            Self::Blocks => {
                "Blocks that wait for the dispatcher, and cancellations: an unacknowledged block has unreleased work"
            }
            Self::Stages => "Stages and attempts that wait for the dispatcher to release them",
            Self::Tasks => "Attempts released to provers: a message stays until the attempt has a stored end",
            Self::Checks => "Completed attempts that wait for a verifier",
            Self::Results => {
                "Ends of attempts and of blocks: a message stays until what follows from it is stored"
            }
            Self::Leases => "The newest heartbeat of each prover and verifier, for an hour",
            Self::Control => "Orders to provers and verifiers, such as stop or quarantine, for a minute",
            Self::Proofs => {
                "The output: one record per block or range, in the chain's order; consumers of proofs read here"
            }
            Self::Dead => "Dead letters, until an operator acts: `push0 dead list`",
            Self::Events => "Events for people and dashboards, for an hour: no decision depends on them",
        }
    }
}
