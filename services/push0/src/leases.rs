//! Reading of leases.

use crate::failure::Failure;
use push0_bus::{Bus, Kept, Stream};
use push0_domain::message::Lease;
use push0_domain::subject::{self, Kind};

/// Returns the newest lease of each prover and verifier of the last hour.
pub(crate) async fn newest(bus: &Bus) -> Result<Vec<Kept<Lease>>, Failure> {
    let mut leases = Vec::new();
    for (subject, _) in bus.subjects(Stream::Leases, &subject::all(Kind::Lease)).await? {
        // A lease may have expired in the meantime.
        leases.extend(bus.last::<Lease>(Stream::Leases, &subject).await?);
    }
    Ok(leases)
}
