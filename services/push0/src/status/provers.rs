//! Provers and verifiers, as their leases tell.

use super::model::ProverStatus;
use crate::failure::Failure;
use push0_bus::{Bus, Kept, now};
use push0_domain::message::{Lease, ProverState, Role};
use push0_domain::{Timestamp, ZkvmId};
use std::collections::BTreeSet;
use std::time::Duration;

/// Silence after which the watchdog reassigns a prover's work: three heartbeats.
pub(crate) const LOST_AFTER: Duration = Duration::from_millis(750);

/// Reads the newest lease of each prover and verifier.
pub(super) async fn read(bus: &Bus) -> Result<Vec<ProverStatus>, Failure> {
    let leases = crate::leases::newest(bus).await?;
    let mut provers: Vec<ProverStatus> = leases
        .into_iter()
        .filter_map(|kept| status(kept, now()))
        .collect();
    provers.sort_by(|a, b| (&a.zkvm, &a.id).cmp(&(&b.zkvm, &b.id)));
    Ok(provers)
}

/// Returns the zkVMs of which a prover, or a verifier, is heard.
pub(crate) async fn heard(bus: &Bus, role: Role) -> Result<BTreeSet<ZkvmId>, Failure> {
    let there = read(bus).await?.into_iter();
    let heard = there.filter(|prover| prover.role == role && !prover.lost && !prover.left);
    Ok(heard.map(|prover| prover.zkvm).collect())
}

fn status(kept: Kept<Lease>, now: Timestamp) -> Option<ProverStatus> {
    let lease = kept.body.ok()?;
    let silent = now.since(kept.stored_at);
    // The last lease of a prover after an orderly end: it takes no work and holds none.
    let left = silent > LOST_AFTER && lease.state == ProverState::Draining && lease.held.is_empty();
    Some(ProverStatus {
        id: lease.prover,
        zkvm: lease.zkvm,
        role: lease.role,
        slots: lease.slots,
        held: lease.held.len(),
        state: lease.state,
        heard_ms_ago: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
        lost: silent > LOST_AFTER && !left,
        left,
    })
}
