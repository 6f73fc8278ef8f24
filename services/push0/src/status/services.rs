//! The services of a deployment: those that make themselves known to the broker, and the processes of `push0 up`.

use super::model::ServiceStatus;
use crate::context::Context;
use crate::probe;
use push0_bus::Introduced;

/// Returns the services that made themselves known, and after them the processes of the `push0 up` in DIR that did not:
/// provers, verifiers, and services that do not answer.
pub(super) async fn all(context: &Context, introduced: &[Introduced]) -> Vec<ServiceStatus> {
    let mut services: Vec<ServiceStatus> = introduced.iter().map(of).collect();
    let own = context
        .endpoint()
        .map_or(Vec::new(), |endpoint| endpoint.services);
    for process in own {
        if introduced.iter().any(|service| service.name == process.name) {
            continue;
        }
        let reason = probe::ready(process.address).await.err();
        services.push(ServiceStatus {
            name: process.name,
            ready: reason.is_none(),
            reason,
            ..ServiceStatus::default()
        });
    }
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
