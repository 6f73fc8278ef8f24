//! The schedule of faults: drawn from a seed, then carried out.

use super::processes::{self, MOCK, VERIFIERS};
use crate::{monitor::Monitor, stand};
use push0_harness::{Deployment, NatsCluster, NatsServer};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{path::Path, time::Duration};
use tokio::time::Instant;

/// Prefix of the names of brokers among the victims.
const BROKER: &str = "broker-";
/// Name of the dependency of the programs of `prover-exec`, among the victims.
pub(super) const DEPENDENCY: &str = "dependency";
/// Name of all verifiers together, among the victims.
pub(super) const VERIFIERS_AWAY: &str = "verifiers";
/// Name of a second process of a prover's name, among the victims.
pub(super) const TWINS: &str = "two of a name";
/// How long before a second process starts the prover must be well, and the brokers too: only a prover that is
/// connected can defend its name. A restarted one has taken its name again within this time.
const SETTLED: Duration = Duration::from_secs(5);
/// How long the prover and the brokers are left alone while a second process starts.
const TWIN_LASTS: Duration = Duration::from_secs(4);
/// How much longer a second process may take to be refused, on a busy machine.
const TWIN_PATIENCE: Duration = Duration::from_secs(5);
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
    /// Away: every program with a need for it fails at once.
    Outage,
    /// A second process of the victim's name, which must be refused.
    Twin,
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
            Kind::Terminate | Kind::Outage | Kind::Twin => false,
        }
    }

    /// Returns the label of the second process of the victim's name.
    fn twin(&self) -> String {
        format!("{}-twin-{}", self.victim, self.at.as_millis())
    }

    /// Returns the labels of the affected processes.
    fn processes(&self) -> Vec<&str> {
        match self.victim.as_str() {
            VERIFIERS_AWAY => VERIFIERS.to_vec(),
            other => vec![other],
        }
    }

    /// Returns whether this fault rules the other one out: both affect one process at a time, or one of them is a
    /// second process of a name, and the other affects what the prover needs to defend its name.
    fn excludes(&self, other: &Self) -> bool {
        let from = |fault: &Self| match fault.kind {
            Kind::Twin => fault.at.saturating_sub(SETTLED),
            _ => fault.at,
        };
        let meet = from(self) < other.until && from(other) < self.until;
        let both = self
            .processes()
            .iter()
            .any(|name| other.processes().contains(name));
        let twin_meets_broker = |one: &Self, two: &Self| one.kind == Kind::Twin && two.broker().is_some();
        meet && (both || twin_meets_broker(self, other) || twin_meets_broker(other, self))
    }
}

/// Second processes of a name in a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Twins {
    pub(super) started: u64,
    /// Why, for each second process that started or whose start ended the first one.
    pub(super) not_refused: Vec<String>,
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
            let fault = Self::draw_one(&mut chance, at, processes, brokers);
            if !faults.iter().any(|other| fault.excludes(other)) {
                faults.push(fault);
            }
            at += Duration::from_millis(chance.random_range(EVERY_MS));
        }
        Self { faults }
    }

    fn draw_one(chance: &mut StdRng, at: Duration, processes: &[String], brokers: usize) -> Fault {
        // Brokers are hit as often as any two processes, because all processes depend on them.
        let drawn = chance.random_range(0..processes.len() + 2);
        let victim = match processes.get(drawn) {
            Some(process) => process.clone(),
            None => format!("{BROKER}{}", chance.random_range(0..brokers)),
        };
        let kind = match chance.random_range(0..10) {
            _ if victim == DEPENDENCY => Kind::Outage,
            _ if victim == TWINS => Kind::Twin,
            _ if victim == VERIFIERS_AWAY => Kind::Kill,
            0..5 => Kind::Kill,
            5..8 => Kind::Freeze,
            _ => Kind::Terminate,
        };
        let longest = if victim.starts_with(BROKER) { 1_500 } else { 3_000 };
        let lasts = Duration::from_millis(chance.random_range(50..longest));
        let mocks: Vec<&String> = processes.iter().filter(|name| name.starts_with(MOCK)).collect();
        if kind == Kind::Twin && !mocks.is_empty() {
            return Fault {
                at,
                until: at + TWIN_LASTS,
                victim: mocks[chance.random_range(0..mocks.len())].clone(),
                kind,
            };
        }
        Fault {
            at,
            until: at + lasts,
            victim,
            kind,
        }
    }

    /// Carries out all faults, and returns how many second processes of a name started and were not refused.
    /// Everything runs again at the end.
    ///
    /// `outage` is the file whose presence is an outage of the dependency.
    pub(super) async fn carry_out(
        &self,
        deployment: &mut Deployment<NatsCluster>,
        monitor: &Monitor,
        outage: &Path,
    ) -> std::io::Result<Twins> {
        let start = Instant::now();
        let begins = self.faults.iter().map(|fault| (fault.at, true, fault));
        let ends = self.faults.iter().map(|fault| (fault.until, false, fault));
        let mut steps: Vec<_> = begins.chain(ends).collect();
        steps.sort_by_key(|(at, ..)| *at);
        let mut twins = Twins::default();
        for (at, begins, fault) in steps {
            tokio::time::sleep_until(start + at).await;
            match (fault.kind, begins, fault.broker()) {
                (Kind::Outage, true, _) => std::fs::write(outage, "")?,
                (Kind::Outage, false, _) => std::fs::remove_file(outage)?,
                (Kind::Twin, true, _) => {
                    twins.started += 1;
                    deployment.start_service(processes::mock(&fault.victim, &fault.twin()));
                }
                (Kind::Twin, false, _) => {
                    twins.not_refused.extend(not_refused(deployment, fault).await);
                }
                (kind, true, Some(at)) => break_broker(deployment.nats.server_mut(at), kind).await,
                (kind, false, Some(at)) => heal_broker(deployment.nats.server_mut(at), kind).await,
                (_, true, None) => break_processes(deployment, monitor, fault),
                (_, false, None) => heal_processes(deployment, fault),
            }
        }
        Ok(twins)
    }
}

/// Returns `None` if the second process of a name ended because of that and the first one runs as ever, otherwise
/// the difference.
async fn not_refused(deployment: &Deployment<NatsCluster>, fault: &Fault) -> Option<String> {
    let twin = deployment.service(&fault.twin());
    if let Err(error) = stand::refused(twin, TWIN_PATIENCE).await {
        twin.kill();
        return Some(format!("{error:#}"));
    }
    let ended = !deployment.service(&fault.victim).is_running();
    ended.then(|| format!("{} ended when a second process of its name started", fault.victim))
}

fn break_processes(deployment: &Deployment<NatsCluster>, monitor: &Monitor, fault: &Fault) {
    for label in fault.processes() {
        if fault.silences() {
            monitor.silenced(label);
        }
        let process = deployment.service(label);
        match fault.kind {
            Kind::Kill => process.kill(),
            Kind::Freeze => process.pause(),
            Kind::Terminate => process.terminate(),
            Kind::Outage | Kind::Twin => {}
        }
    }
}

fn heal_processes(deployment: &mut Deployment<NatsCluster>, fault: &Fault) {
    for label in fault.processes() {
        match fault.kind {
            Kind::Freeze => deployment.service(label).resume(),
            Kind::Kill | Kind::Terminate => deployment.service_mut(label).restart(),
            Kind::Outage | Kind::Twin => {}
        }
    }
}

async fn break_broker(server: &mut NatsServer, kind: Kind) {
    match kind {
        Kind::Kill => server.kill(),
        Kind::Freeze => server.pause(),
        Kind::Terminate => server.stop().await,
        Kind::Outage | Kind::Twin => {}
    }
}

async fn heal_broker(server: &mut NatsServer, kind: Kind) {
    match kind {
        Kind::Freeze => server.resume(),
        Kind::Kill | Kind::Terminate => server.restart().await,
        Kind::Outage | Kind::Twin => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        let mut names: Vec<String> = (0..10).map(|n| format!("p{n}")).collect();
        names.extend((1..=3).map(|n| format!("{MOCK}{n}")));
        names.extend(VERIFIERS.map(ToOwned::to_owned));
        names.extend([DEPENDENCY, VERIFIERS_AWAY, TWINS, TWINS].map(ToOwned::to_owned));
        names
    }

    #[test]
    fn a_seed_draws_one_schedule_with_a_fault_every_two_seconds_and_none_twice_at_once() {
        let draw = |seed| Schedule::draw(seed, Duration::from_secs(300), &names(), 3).faults;
        assert_eq!(format!("{:?}", draw(7)), format!("{:?}", draw(7)));
        assert_ne!(format!("{:?}", draw(7)), format!("{:?}", draw(8)));
        let faults = draw(7);
        assert!(faults.len() >= 150, "{} faults in 300 s", faults.len());
        for (at, fault) in faults.iter().enumerate() {
            let labels = fault.processes();
            let mut later = faults[at + 1..].iter();
            let again = later.find(|f| f.processes().iter().any(|label| labels.contains(label)));
            assert!(again.is_none_or(|f| f.at >= fault.until), "{fault:?} {again:?}");
        }
    }

    #[test]
    fn all_verifiers_go_away_and_a_name_is_contested_only_while_its_prover_can_defend_it() {
        let mut seen = [0, 0];
        for seed in 0..20 {
            let faults = Schedule::draw(seed, Duration::from_secs(60), &names(), 1).faults;
            seen[0] += faults.iter().filter(|f| f.victim == VERIFIERS_AWAY).count();
            for twin in faults.iter().filter(|f| f.kind == Kind::Twin) {
                seen[1] += 1;
                assert!(twin.victim.starts_with(MOCK), "{twin:?}");
                let harmful =
                    |f: &&Fault| f.kind != Kind::Twin && (f.victim == twin.victim || f.broker().is_some());
                let mut others = faults.iter().filter(harmful);
                let meets = others.find(|f| f.at < twin.until && f.until + SETTLED > twin.at);
                assert!(meets.is_none(), "{twin:?} {meets:?}");
            }
        }
        assert!(seen.iter().all(|count| *count >= 20), "in 20 minutes: {seen:?}");
    }
}
