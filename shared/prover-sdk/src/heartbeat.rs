//! Heartbeats: from a thread and a connection of their own, so that a proof which takes every core
//! and every thread of the runtime does not make its prover look dead.

use crate::ledger::Ledger;
use push0_bus::{Bus, Message, NatsConfig};
use push0_domain::{
    ProverId, ZkvmId,
    message::{Lease, Role},
    subject,
    trace::TraceContext,
};
use std::{sync::Arc, thread, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a prover is heard of when nothing changes.
pub(crate) const INTERVAL: Duration = Duration::from_millis(250);
/// The least time between two heartbeats, and what each held delivery adds to it: what changes more
/// often shares one, and a prover with many slots does not spend itself on naming them.
const CLOSEST: Duration = Duration::from_millis(5);
const CLOSEST_PER_HELD: Duration = Duration::from_micros(500);
/// How often held deliveries are extended: well within the broker's ack wait of 5 s.
const EXTEND_EVERY: Duration = Duration::from_secs(1);

/// Who the heartbeats speak for.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) prover: ProverId,
    pub(crate) zkvm: ZkvmId,
    pub(crate) role: Role,
    pub(crate) slots: u32,
    pub(crate) incarnation: u64,
}

/// The running thread; ends with a last heartbeat when it is dropped.
pub(crate) struct Heartbeat {
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Heartbeat {
    pub(crate) fn start(nats: NatsConfig, identity: Identity, ledger: Arc<Ledger>) -> std::io::Result<Self> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::Builder::new().name("heartbeat".into()).spawn(move || {
            if let Err(error) = runtime.block_on(beat(nats, identity, ledger, stopped)) {
                tracing::error!(%error, "no heartbeats");
            }
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the heartbeat's thread panicked");
        }
    }
}

async fn beat(
    nats: NatsConfig,
    who: Identity,
    ledger: Arc<Ledger>,
    stop: CancellationToken,
) -> Result<(), push0_bus::ConnectError> {
    let bus = Bus::connect(&nats, &format!("{}-heartbeat", who.prover)).await?;
    tokio::select! {
        () = bus.connected() => {}
        () = stop.cancelled() => return Ok(()),
    }
    let mut count = 0;
    let mut extended_at = Instant::now();
    loop {
        let sent_at = Instant::now();
        let last = stop.is_cancelled();
        count += 1;
        let extend = sent_at.duration_since(extended_at) >= EXTEND_EVERY;
        if extend {
            extended_at = sent_at;
        }
        let held = send(&bus, &who, &ledger, count, extend).await;
        if last {
            bus.flush().await;
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep_until(sent_at + INTERVAL) => {}
            () = ledger.changed.notified() => {}
            () = stop.cancelled() => {}
        }
        let closest = (CLOSEST + CLOSEST_PER_HELD * held).min(INTERVAL / 2);
        tokio::time::sleep_until(sent_at + closest).await;
    }
}

/// Sends a heartbeat; returns how many deliveries it names.
async fn send(bus: &Bus, who: &Identity, ledger: &Ledger, beat: u64, extend: bool) -> u32 {
    let now = ledger.snapshot();
    if extend {
        for held in &now.held {
            bus.ack_of(&held.ack_subject).progress().await;
        }
    }
    let count = u32::try_from(now.held.len()).unwrap_or(u32::MAX);
    let lease = Lease {
        prover: who.prover.clone(),
        zkvm: who.zkvm.clone(),
        role: who.role,
        incarnation: who.incarnation,
        beat,
        slots: who.slots,
        ahead: now.ahead,
        state: now.state,
        held: now.held,
    };
    let message = Message::new(
        subject::lease(&who.zkvm, &who.prover),
        &lease,
        &TraceContext::default(),
    );
    let sent = match message {
        Ok(message) => bus.signal(message).await.map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = sent {
        tracing::debug!(error, "heartbeat not sent");
    }
    count
}
