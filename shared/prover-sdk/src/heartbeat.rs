//! Heartbeats, sent from a thread and a connection of their own. A proof that takes every core and every
//! thread of the runtime must not make its prover look dead.

use crate::{
    identity::Identity,
    ledger::{Ledger, Snapshot, Told},
    presence::{Name, NameTaken},
};
use push0_bus::{Bus, BusError, Message, NatsConfig};
use push0_domain::{message::Lease, subject, trace::TraceContext};
use push0_runtime::{BoxError, Health};
use std::{sync::Arc, thread, time::Duration};
use tokio::{sync::oneshot, time::Instant};
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

/// The heartbeat thread. Sends a last heartbeat when dropped.
pub(crate) struct Heartbeat {
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

/// Answers once whether the process has its name. Dropped without an answer if the thread ends before.
pub(crate) type Named = oneshot::Receiver<Result<(), NameTaken>>;

impl Heartbeat {
    /// Starts the thread. No heartbeat is sent before the process has its name, and none if the name is taken.
    /// The process is not ready while the connection of the thread is away, or refused an action: a prover that is
    /// not heard gets no work.
    pub(crate) fn start(
        nats: NatsConfig,
        identity: Identity,
        ledger: Arc<Ledger>,
        health: &Health,
    ) -> std::io::Result<(Self, Named)> {
        let permissions = health.component("heartbeat.permissions").reporter();
        let connection = health.component("heartbeat.connection");
        let stop = CancellationToken::new();
        let (tell, named) = oneshot::channel();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::Builder::new().name("heartbeat".into()).spawn(move || {
            let ended = runtime.block_on(async {
                let name = format!("{}-heartbeat", identity.prover);
                let away = connection.clone().quiet_reporter();
                let bus = Bus::connect_reporting(&nats, &name, permissions, away).await?;
                beat(bus, identity, ledger, tell, stopped).await
            });
            if let Err(error) = ended {
                tracing::error!(%error, "no heartbeats are sent, so this process gets no work: restart it");
                connection.not_ready(format!("no heartbeats are sent until a restart: {error}"));
            }
        })?;
        let heartbeat = Self {
            stop,
            thread: Some(thread),
        };
        Ok((heartbeat, named))
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
    bus: Bus,
    who: Identity,
    ledger: Arc<Ledger>,
    tell: oneshot::Sender<Result<(), NameTaken>>,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    tokio::select! {
        () = bus.connected() => {}
        () = stop.cancelled() => return Ok(()),
    }
    let name = Name::take(&bus, &who);
    let mut name = tokio::select! {
        name = name => match name? {
            Ok(name) => name,
            Err(taken) => {
                // Fails only if the process is stopping.
                let _ = tell.send(Err(taken));
                return Ok(());
            }
        },
        () = stop.cancelled() => return Ok(()),
    };
    let _ = tell.send(Ok(()));
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
            ended = answer(&mut name) => return Err(ended.into()),
        }
    }
}

/// Answers other processes of the name until the connection is closed for good.
async fn answer(name: &mut Name) -> BusError {
    loop {
        match name.next().await {
            Ok(word) => name.answer(&word).await,
            Err(error) => return error,
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
            for ack in &now.acks {
                ack.over(&self.bus).progress().await;
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
            origin: Some(who.origin.clone()),
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
