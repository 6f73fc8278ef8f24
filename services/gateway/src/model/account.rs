//! Where the time of a recorded block went, for clients.

use crate::view::{self, millis};
use push0_domain::{
    Timestamp,
    message::Emission,
    path::{Leg, Parts},
    pipeline::STAGES_MAX,
};

/// Returns where the time of a block went until its record was stored; `None` without a proof.
pub(super) fn account(record: &Emission, stored_at: Timestamp) -> Option<view::Account> {
    let account = record.account(stored_at)?;
    Some(view::Account {
        total_us: account.total_us,
        parts: parts(&account.parts),
        range_us: account.range_us,
        order_us: account.order_us,
        own_us: account.own_us,
    })
}

/// Returns the stages on the critical path of a block.
pub(super) fn legs(record: &Emission) -> Vec<view::Leg> {
    record.critical_path().iter().take(STAGES_MAX).map(leg).collect()
}

fn leg(leg: &Leg) -> view::Leg {
    view::Leg {
        stage: leg.stage.to_string(),
        ready_at: millis(leg.ready_at),
        ended_at: millis(leg.ended_at),
        prover: leg.prover.to_string(),
        verifier: leg.verifier.as_ref().map(ToString::to_string),
        failed: leg.failed,
        parts: parts(&leg.parts),
        own_us: leg.own_us(),
    }
}

fn parts(parts: &Parts) -> view::Parts {
    view::Parts {
        failed_us: parts.failed_us,
        waited_us: parts.waited_us,
        transfer_us: parts.transfer_us,
        prove_us: parts.prove_us,
        check_waited_us: parts.check_waited_us,
        verify_us: parts.verify_us,
    }
}
