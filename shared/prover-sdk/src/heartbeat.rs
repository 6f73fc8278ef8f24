//! Heartbeats, sent from a thread and a connection of their own. A proof that takes every core and every
//! thread of the runtime must not make its prover look dead.

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

/// Interval of heartbeats while nothing changes.
pub(crate) const INTERVAL: Duration = Duration::from_millis(250);
/// How often the held deliveries are checked for changes. Attempts that begin and end between two checks
/// cause no heartbeat. The thread polls, because waking it for every attempt costs more than many an
/// attempt. If the process dies with an attempt not yet in a heartbeat, the watchdog finds the attempt by
/// the broker's record of deliveries (`unheld` in the watchdog).
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Interval at which held deliveries are extended, well within the broker's ack wait of 5 s.
const EXTEND_EVERY: Duration = Duration::from_secs(1);

/// The process for which the heartbeats are sent.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) prover: ProverId,
    pub(crate) zkvm: ZkvmId,
    pub(crate) role: Role,
    pub(crate) slots: u32,
    pub(crate) incarnation: u64,
}

/// The heartbeat thread. Sends a last heartbeat when dropped.
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
                tracing::error!(%error, "no heartbeats are sent, so this process gets no work");
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
            tracing::error!("the heartbeat thread panicked");
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

/// Sender of the heartbeats of one process.
struct Beats {
    bus: Bus,
    who: Identity,
    ledger: Arc<Ledger>,
    count: u64,
    told: Option<Told>,
    extended_at: Instant,
}

impl Beats {
    /// Waits until a new lease would differ from the last one in a way that other services must know soon.
    async fn has_news(&self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                // A prover that leaves or is quarantined must get no more tasks, so this change is
                // sent at once.
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
            // The number of wanted tasks may have changed by time alone, because ends of attempts are
            // predicted from the last ones. The loop that takes work must look again.
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
