//! Heartbeats for the tests of decisions.

use push0_domain::{
    Announcement, BlockHash, BlockRef, ProverId, Timestamp, ZkvmId,
    message::{BlockContext, BlockFacts, Held, Lease, ProverState, Role, StageKind, TaskHeader},
    task::StageKey,
    trace::TraceContext,
};
use std::time::Duration;

pub(crate) const START: Timestamp = Timestamp(1_000_000_000);
pub(crate) const TICK: Duration = Duration::from_millis(50);

pub(crate) fn held(index: u32, running: Option<Duration>, timeout: Duration) -> Held {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).expect("valid");
    let stage = StageKey {
        pipeline: "demo".parse().expect("valid"),
        block: BlockRef {
            number: 7,
            hash: BlockHash([7; 32]),
        },
        first: None,
        proof_type: "main".parse().expect("valid"),
        stage: "prove".parse().expect("valid"),
    };
    let header = TaskHeader {
        id: stage.task(index),
        attempt: 1,
        hedge_of: None,
        zkvm: ZkvmId::new("mock").expect("valid"),
        context: BlockContext {
            revision: 1,
            parent_hash: BlockHash::default(),
            announcement: Announcement(1),
            stored_at: Timestamp(1),
            first_announcement: None,
            deadline_at: None,
            amends: false,
            facts: BlockFacts::default(),
        },
        kind: StageKind::Map,
        of: 1000,
        timeout_ms: millis(timeout),
        hedge_after_ms: None,
        attempts_max: 3,
        give_up_at: None,
        check: false,
        program_id: None,
        path: push0_domain::CriticalPath::default(),
        seal: push0_domain::seal::Seal::default(),
    };
    Held {
        header,
        sequence: u64::from(index),
        running_ms: running.map(millis),
        ends_soon: false,
        progress_permille: None,
        trace: TraceContext::default(),
    }
}

pub(crate) fn lease(prover: u32, role: Role, held: Vec<Held>) -> Lease {
    Lease {
        prover: ProverId::new(&format!("p-{prover}")).expect("valid"),
        zkvm: ZkvmId::new("mock").expect("valid"),
        role,
        incarnation: 1,
        origin: None,
        beat: 1,
        slots: 4,
        ahead: 4,
        state: ProverState::Active,
        held,
    }
}
