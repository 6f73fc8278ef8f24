//! The process: listens to the broker and answers clients, until it is asked to stop.

use crate::{
    config::Config,
    http::{self, Interface},
    listen,
    metrics::Metrics,
    shared::Shared,
};
use push0_bus::{Backoff, Bus, BusError, now};
use push0_runtime::{BoxError, Component, Service, memory};
use std::time::Instant;

/// Runs the gateway until it is asked to stop.
pub async fn run(service: Service<Config>) -> Result<(), BoxError> {
    memory::return_large_buffers();
    let broker = service.health.component("broker");
    let permissions = service.health.component("permissions").reporter();
    let connection = service.health.component("connection").quiet_reporter();
    let metrics = Metrics::register()?;
    let shared = Shared::new(epoch());
    let bus = Bus::connect_reporting(&service.config.nats, "gateway", permissions, connection).await?;
    let health = service.health.clone();
    let _known = bus.introduce(service.name, service.version, move || health.trouble());
    let interface = Interface::new(&service.config.gateway, bus.clone(), shared.clone())?;
    let serving = http::serve(service.config.gateway.listen, interface).await?;
    tokio::select! {
        () = service.shutdown.requested() => {}
        never = listen(&bus, &shared, &metrics, &broker) => match never {},
        () = serving => {}
    }
    Ok(())
}

/// Listens for ever: after an interruption, the state is read anew.
async fn listen(
    bus: &Bus,
    shared: &Shared,
    metrics: &Metrics,
    broker: &Component,
) -> std::convert::Infallible {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let ended = bus.permitted(session(bus, shared, metrics, broker)).await;
        let Err(error) = ended;
        broker.not_ready(error.to_string());
        tracing::warn!(%error, "the broker cannot be read, so clients see an old state until it can");
        shared.with(|model| model.is_away(error.to_string(), now()));
        if let Err(error) = shared.flush(now()) {
            tracing::error!(%error, "a change cannot be encoded");
        }
        backoff.pause_after(began).await;
    }
}

async fn session(
    bus: &Bus,
    shared: &Shared,
    metrics: &Metrics,
    broker: &Component,
) -> Result<std::convert::Infallible, BusError> {
    bus.connected().await;
    bus.check_provisioned().await?;
    listen::run(bus, shared, metrics, broker).await
}

/// Returns a number that tells this process from others.
fn epoch() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(std::process::id());
    u32::try_from(random >> 32).unwrap_or_default()
}
