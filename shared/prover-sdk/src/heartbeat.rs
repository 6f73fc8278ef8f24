//! Heartbeats: from a thread and a connection of their own, so that a proof which takes every core
//! and every thread of the runtime does not make its prover look dead.

use crate::ledger::{Ledger, Snapshot, Told};
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
/// How often it is looked whether what is held has changed: what was taken and done meanwhile needs no
/// heartbeat of its own. Looked, and not told: to wake this thread for every attempt costs more than many
/// an attempt. What dies untold is found by what the broker handed out (the watchdog's `unheld`).
const LOOK_EVERY: Duration = Duration::from_millis(100);
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
    let mut beats = Beats {
        bus,
        who,
        ledger,
        count: 0,
        told: None,
        extended_at: Instant::now(),
    };
    loop {
        let sent_at = Instant::now();
        let last = stop.is_cancelled();
        beats.send(sent_at).await;
        if last {
            beats.bus.flush().await;
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep_until(sent_at + INTERVAL) => {}
            () = beats.has_news() => {}
            () = stop.cancelled() => {}
        }
    }
}

/// The heartbeats of one process.
struct Beats {
    bus: Bus,
    who: Identity,
    ledger: Arc<Ledger>,
    count: u64,
    told: Option<Told>,
    extended_at: Instant,
}

impl Beats {
    /// Waits until there is something to tell that the last heartbeat did not.
    async fn has_news(&self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                // Who leaves must get nothing more: that is told at once.
                () = self.ledger.turned.notified() => {}
            }
            if self.told != Some(self.ledger.told()) {
                return;
            }
        }
    }

    async fn send(&mut self, at: Instant) {
        let (now, told) = self.ledger.snapshot();
        self.count += 1;
        if self.told.as_ref() != Some(&told) {
            // Time alone changes how much is wanted, by what the last attempts foretell.
            self.ledger.freed.notify_one();
        }
        self.told = Some(told);
        if at.duration_since(self.extended_at) >= EXTEND_EVERY {
            self.extended_at = at;
            for held in &now.held {
                self.bus.ack_of(&held.ack_subject).progress().await;
            }
        }
        if let Err(error) = self.say(now).await {
            tracing::debug!(error, "heartbeat not sent");
        }
    }

    async fn say(&self, now: Snapshot) -> Result<(), String> {
        let who = &self.who;
        let lease = Lease {
            prover: who.prover.clone(),
            zkvm: who.zkvm.clone(),
            role: who.role,
            incarnation: who.incarnation,
            beat: self.count,
            slots: who.slots,
            ahead: now.ahead,
            state: now.state,
            held: now.held,
        };
        let subject = subject::lease(&who.zkvm, &who.prover);
        let message = Message::new(subject, &lease, &TraceContext::default()).map_err(|e| e.to_string())?;
        self.bus.signal(message).await.map_err(|e| e.to_string())
    }
}
