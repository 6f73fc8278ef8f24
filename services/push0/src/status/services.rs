//! The services of a deployment: those that make themselves known to the broker, and the processes of `push0 up`.

use super::model::ServiceStatus;
use crate::context::Context;
use crate::endpoint::ServiceEntry;
use crate::probe;
use push0_bus::Introduced;

/// Returns the services that made themselves known, and after them the processes of the `push0 up` in DIR that did not:
/// provers, verifiers, and services that do not answer.
pub(super) async fn all(context: &Context, introduced: &[Introduced]) -> Vec<ServiceStatus> {
    let mut services: Vec<ServiceStatus> = introduced.iter().map(of).collect();
    let own = context
        .endpoint()
        .map_or(Vec::new(), |endpoint| endpoint.services);
    let is_quiet = |process: &ServiceEntry| introduced.iter().all(|service| service.name != process.name);
    let quiet: Vec<ServiceEntry> = own.into_iter().filter(is_quiet).collect();
    let answers = probe::all_ready(quiet.iter().map(|process| process.address)).await;
    services.extend(
        quiet
            .into_iter()
            .zip(answers)
            .map(|(process, answer)| ServiceStatus {
                name: process.name,
                ready: answer.is_ok(),
                reason: answer.err(),
                ..ServiceStatus::default()
            }),
    );
    services
}

fn of(service: &Introduced) -> ServiceStatus {
    ServiceStatus {
        name: service.name.clone(),
        version: Some(service.version.clone()),
        replica: Some(service.replica.clone()),
        leading: service.leading.clone(),
        standby: service.standby.clone(),
        memory_bytes: service.memory_bytes,
        ready: service.not_ready.is_none(),
        reason: service.not_ready.clone(),
    }
}
