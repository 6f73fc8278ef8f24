//! The schedule of faults: drawn from a seed, then carried out.

use crate::monitor::Monitor;
use push0_harness::{Deployment, NatsCluster, NatsServer};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::time::Duration;
use tokio::time::Instant;

/// Prefix of the names of brokers among the victims.
const BROKER: &str = "broker-";
/// Longest silence after which a prover keeps its tasks: 750 ms, and the time to notice.
const SILENCE: Duration = Duration::from_millis(850);
/// Time between two drawn faults, in milliseconds.
const EVERY_MS: std::ops::Range<u64> = 500..2_000;

/// Action on a process, with its reversal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// SIGKILL, and a later restart.
    Kill,
    /// SIGSTOP, and a later SIGCONT.
    Freeze,
    /// SIGTERM, and a later restart.
    Terminate,
}

/// A scheduled fault of one process.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) at: Duration,
    pub(super) until: Duration,
    pub(super) victim: String,
    pub(super) kind: Kind,
}

impl Fault {
    /// Returns the index of the affected broker, or `None` for another process.
    fn broker(&self) -> Option<usize> {
        self.victim.strip_prefix(BROKER)?.parse().ok()
    }

    /// Returns whether the victim's attempts should start elsewhere.
    fn silences(&self) -> bool {
        match self.kind {
            Kind::Kill => true,
            Kind::Freeze => self.until - self.at > SILENCE,
            // A terminated prover hands back its unfinished tasks.
            Kind::Terminate => false,
        }
    }
}

/// All faults of a run.
pub(super) struct Schedule {
    pub(super) faults: Vec<Fault>,
}

impl Schedule {
    /// Draws faults over this length of time. No process has two faults at a time, but both instances of a
    /// pair may be down, and so may all brokers.
    pub(super) fn draw(seed: u64, length: Duration, processes: &[String], brokers: usize) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut faults: Vec<Fault> = Vec::new();
        let mut at = Duration::from_millis(500);
        while at < length {
            let free = |name: &str| !faults.iter().any(|f| f.victim == name && f.until > at);
            // Brokers are hit as often as any two processes, because all processes depend on them.
            let drawn = chance.random_range(0..processes.len() + 2);
            let victim = match processes.get(drawn) {
                Some(process) => process.clone(),
                None => format!("{BROKER}{}", chance.random_range(0..brokers)),
            };
            let kind = match chance.random_range(0..10) {
                0..5 => Kind::Kill,
                5..8 => Kind::Freeze,
                _ => Kind::Terminate,
            };
            let longest = if victim.starts_with(BROKER) { 1_500 } else { 3_000 };
            let lasts = Duration::from_millis(chance.random_range(50..longest));
            if free(&victim) {
                faults.push(Fault {
                    at,
                    until: at + lasts,
                    victim,
                    kind,
                });
            }
            at += Duration::from_millis(chance.random_range(EVERY_MS));
        }
        Self { faults }
    }

    /// Carries out all faults. Everything runs again at the end.
    pub(super) async fn carry_out(&self, deployment: &mut Deployment<NatsCluster>, monitor: &Monitor) {
        let start = Instant::now();
        let begins = self.faults.iter().map(|fault| (fault.at, true, fault));
        let ends = self.faults.iter().map(|fault| (fault.until, false, fault));
        let mut steps: Vec<_> = begins.chain(ends).collect();
        steps.sort_by_key(|(at, ..)| *at);
        for (at, begins, fault) in steps {
            tokio::time::sleep_until(start + at).await;
            match (begins, fault.broker()) {
                (true, Some(at)) => break_broker(deployment.nats.server_mut(at), fault.kind).await,
                (false, Some(at)) => heal_broker(deployment.nats.server_mut(at), fault.kind).await,
                (true, None) => {
                    if fault.silences() {
                        monitor.silenced(&fault.victim);
                    }
                    break_process(deployment, fault);
                }
                (false, None) => match fault.kind {
                    Kind::Freeze => deployment.service(&fault.victim).resume(),
                    Kind::Kill | Kind::Terminate => deployment.service_mut(&fault.victim).restart(),
                },
            }
        }
    }
}

fn break_process(deployment: &Deployment<NatsCluster>, fault: &Fault) {
    let process = deployment.service(&fault.victim);
    match fault.kind {
        Kind::Kill => process.kill(),
        Kind::Freeze => process.pause(),
        Kind::Terminate => process.terminate(),
    }
}

async fn break_broker(server: &mut NatsServer, kind: Kind) {
    match kind {
        Kind::Kill => server.kill(),
        Kind::Freeze => server.pause(),
        Kind::Terminate => server.stop().await,
    }
}

async fn heal_broker(server: &mut NatsServer, kind: Kind) {
    match kind {
        Kind::Freeze => server.resume(),
        Kind::Kill | Kind::Terminate => server.restart().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_one_schedule_with_a_fault_every_two_seconds_and_none_twice_at_once() {
        let names: Vec<String> = (0..10).map(|n| format!("p{n}")).collect();
        let draw = |seed| Schedule::draw(seed, Duration::from_secs(300), &names, 3).faults;
        assert_eq!(format!("{:?}", draw(7)), format!("{:?}", draw(7)));
        assert_ne!(format!("{:?}", draw(7)), format!("{:?}", draw(8)));
        let faults = draw(7);
        assert!(faults.len() >= 150, "{} faults in 300 s", faults.len());
        for (at, fault) in faults.iter().enumerate() {
            let again = faults[at + 1..].iter().find(|f| f.victim == fault.victim);
            assert!(again.is_none_or(|f| f.at >= fault.until), "{fault:?} {again:?}");
        }
    }
}
