//! The janitor: makes room in the store. Data of emitted blocks goes, oldest first, when its place is
//! nearly full, and at the latest after the provisioned time. Data of other blocks stays (docs/adr/0034).
//!
//! The janitor works while its process is the active watchdog. It has a thread and a connection of its own: a sweep
//! of many messages must not delay the watchdog, which ends the work of dead provers within a second.

pub mod frontier;
mod metrics;
pub mod share;
mod sweep;

use metrics::Metrics;
use push0_bus::{Backoff, Bus, BusError, ConnectError, NatsConfig};
use push0_runtime::{BoxError, Health};
use std::{
    thread,
    time::{Duration, Instant},
};
use sweep::Sweep;
use tokio::sync::watch;

/// How often the levels are read.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The janitor's thread. Stops when dropped.
pub(crate) struct Janitor {
    leads: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Janitor {
    /// Starts the thread. The process is not ready while the connection of the thread is away, or refused an action.
    pub(crate) fn start(nats: NatsConfig, health: &Health) -> Result<Self, BoxError> {
        let permissions = health.component("janitor.permissions").reporter();
        let connection = health.component("janitor.connection");
        let metrics = Metrics::register()?;
        let (leads, led) = watch::channel(false);
        let (stop, mut stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::Builder::new().name("janitor".into()).spawn(move || {
            runtime.block_on(async move {
                let away = connection.clone().quiet_reporter();
                let work = async {
                    let bus = Bus::connect_reporting(&nats, "watchdog-janitor", permissions, away).await?;
                    run(&bus, led, &metrics).await;
                    Ok::<(), ConnectError>(())
                };
                tokio::select! {
                    _ = stopped.wait_for(|stop| *stop) => {}
                    Err(error) = work => {
                        tracing::error!(%error, "nothing makes room in the store until this process is restarted");
                        connection.not_ready(format!("nothing makes room in the store until a restart: {error}"));
                    }
                }
            });
        })?;
        Ok(Self {
            leads,
            stop,
            thread: Some(thread),
        })
    }

    /// Says whether this process is the active watchdog. Two janitors at once do no harm.
    pub(crate) fn leads(&self, leads: bool) {
        self.leads.send_replace(leads);
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the janitor's thread panicked");
        }
    }
}

/// Makes room while this process leads.
async fn run(bus: &Bus, mut leads: watch::Receiver<bool>, metrics: &Metrics) {
    let mut backoff = Backoff::default();
    // The sender lives as long as this thread.
    while leads.wait_for(|leads| *leads).await.is_ok() {
        let began = Instant::now();
        let mut resigned = leads.clone();
        let ended = tokio::select! {
            _ = resigned.wait_for(|leads| !*leads) => continue,
            ended = bus.permitted(work(bus, metrics)) => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "cannot make room in the store now, trying again");
            backoff.pause_after(began).await;
        }
    }
}

async fn work(bus: &Bus, metrics: &Metrics) -> Result<(), BusError> {
    bus.connected().await;
    let mut sweep = Sweep::start(bus, metrics).await?;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        sweep.round(push0_bus::now()).await?;
    }
}
