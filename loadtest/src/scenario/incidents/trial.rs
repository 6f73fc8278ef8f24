//! The trials: each is one fault, with the deployment that suffers it.

use crate::stand;
use anyhow::Context as _;
use push0_bus::{Limits, Place};
use push0_harness::{Deployment, DeploymentBuilder, Process, ProcessBuilder};
use std::{path::Path, time::Duration};
use tokio::time::{Instant, sleep};

pub(super) const PROVERS: [&str; 3] = ["p1", "p2", "p3"];
const VERIFIERS: [&str; 2] = ["v1", "v2"];
/// The store of the trial with a full store. The blob store has a fifth: room for 20 proofs.
const SMALL_STORE: u64 = 100 << 20;
/// Level at which the store counts as full: the dispatcher keeps the rest for the outputs of the next blocks.
const FULL_PERMILLE: u64 = 700;
/// Length of a proof that goes to the blob store, in bytes.
const LARGE_PROOF: u64 = 1 << 20;
/// Length of a stall, and of the time until the next one.
const STALL: Duration = Duration::from_secs(1);
/// How long a second process of a name may take to be refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

/// One kind of incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// A dependency of every prover is away: each attempt fails at once.
    Outage,
    /// The disk on which the provers' programs write is full.
    Disk,
    /// The blob store fills with proofs that no verifier has checked yet.
    Store,
    /// The provers stand still one after the other, each for a second.
    Stalls,
    /// All verifiers are away.
    Verifiers,
    /// The provers are killed one after the other.
    Kills,
    /// A second process takes the name of a prover, again and again.
    Twins,
    /// The broker stands still.
    Broker,
    /// Every control service is killed at once.
    Control,
    /// The node stands still, then has all blocks of that time at once.
    Node,
}

impl Trial {
    pub(super) const ALL: [Self; 10] = [
        Self::Outage,
        Self::Disk,
        Self::Store,
        Self::Stalls,
        Self::Verifiers,
        Self::Kills,
        Self::Twins,
        Self::Broker,
        Self::Control,
        Self::Node,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Outage => "outage",
            Self::Disk => "scratch-full",
            Self::Store => "store-full",
            Self::Stalls => "stalls",
            Self::Verifiers => "verifiers-away",
            Self::Kills => "kills",
            Self::Twins => "two-of-a-name",
            Self::Broker => "broker-frozen",
            Self::Control => "control-killed",
            Self::Node => "node-lags",
        }
    }

    pub(super) fn deployment(self, folder: &Path) -> DeploymentBuilder {
        let mut builder = stand::services();
        if self == Self::Store {
            builder = builder.limits(Limits {
                store_bytes: SMALL_STORE,
                ..Limits::default()
            });
        }
        let builder = PROVERS.into_iter().fold(builder, |builder, name| {
            builder.service(self.prover(name, name, folder))
        });
        VERIFIERS.into_iter().fold(builder, |builder, name| {
            builder.service(self.prover(name, name, folder).arg("--verify"))
        })
    }

    /// Returns an adapter whose program copies its input, unless the program's dependency is away.
    fn prover(self, label: &str, id: &str, folder: &Path) -> ProcessBuilder {
        let away = away(folder).display().to_string();
        let fails = match self {
            // Every write to this device finds no space.
            Self::Disk => "cp \"$1\" /dev/full; exit 1",
            _ => "echo 'the node does not answer' >&2; exit 1",
        };
        let output = match self {
            Self::Store => format!("head -c {LARGE_PROOF} /dev/zero > \"$2\""),
            _ => "cp \"$1\" \"$2\"".to_owned(),
        };
        let script = format!("if [ -e {away} ]; then {fails}; fi; sleep 0.1; {output}");
        Process::program("prover-exec")
            .label(label)
            .env("PUSH0_PROVER__ID", id)
            .env("PUSH0_PROVER__ZKVM", "exec")
            .config(&format!(
                "[prover]\nslots = 2\n[exec]\nprogram = '/bin/sh'\n\
                 args = ['-c', '''{script}''', 'script', '{{input}}', '{{output}}']\nverify_program = '/bin/true'\n"
            ))
    }

    /// Brings the fault about, heals it after `lasts`, and returns when everything was well again.
    pub(super) async fn inject(
        self,
        deployment: &mut Deployment,
        folder: &Path,
        lasts: Duration,
    ) -> anyhow::Result<Instant> {
        match self {
            Self::Outage | Self::Disk => {
                std::fs::write(away(folder), "").context("the outage")?;
                sleep(lasts).await;
                std::fs::remove_file(away(folder)).context("the end of the outage")?;
            }
            Self::Stalls | Self::Kills => self.one_after_another(deployment, lasts).await,
            Self::Verifiers => killed(deployment, &VERIFIERS.map(String::from), lasts).await,
            Self::Store => {
                VERIFIERS.iter().for_each(|name| deployment.service(name).kill());
                sleep(lasts).await;
                let levels = deployment.bus().levels(&[Place::Blobs]).await?;
                VERIFIERS
                    .iter()
                    .for_each(|name| deployment.service_mut(name).restart());
                let is_full = levels.iter().all(|(_, level)| level.permille() >= FULL_PERMILLE);
                anyhow::ensure!(
                    is_full,
                    "the store did not fill, so the trial shows nothing: {levels:?}"
                );
            }
            Self::Twins => self.twins(deployment, folder, lasts).await?,
            Self::Broker => {
                deployment.nats.pause();
                sleep(lasts).await;
                deployment.nats.resume();
            }
            Self::Control => {
                let control = ["dispatcher", "collector", "watchdog", "ingester"];
                let labels = control.map(|name| [format!("{name}-1"), format!("{name}-2")]);
                killed(deployment, &labels.concat(), lasts).await;
            }
            // The node is no part of the deployment.
            Self::Node => {}
        }
        Ok(Instant::now())
    }

    /// Takes one prover after the other away. Returns at the end of the last absence.
    async fn one_after_another(self, deployment: &mut Deployment, lasts: Duration) {
        let turns = lasts.as_secs() / (2 * STALL.as_secs());
        for (turn, name) in (0..turns).zip(PROVERS.iter().cycle()) {
            if turn > 0 {
                sleep(STALL).await;
            }
            match self {
                Self::Stalls => deployment.service(name).pause(),
                _ => deployment.service(name).kill(),
            }
            sleep(STALL).await;
            match self {
                Self::Stalls => deployment.service(name).resume(),
                _ => deployment.service_mut(name).restart(),
            }
        }
    }

    /// Starts one process after the other under the name of a prover, which must be refused.
    async fn twins(self, deployment: &mut Deployment, folder: &Path, lasts: Duration) -> anyhow::Result<()> {
        let (ends, own) = (Instant::now() + lasts, deployment.service(PROVERS[0]).pid());
        for turn in 0.. {
            let twin = self.prover(&format!("twin-{turn}"), PROVERS[0], folder);
            stand::refused(deployment.start_service(twin), REFUSED_WITHIN).await?;
            let prover = deployment.service(PROVERS[0]);
            anyhow::ensure!(
                prover.is_running() && prover.pid() == own,
                "{} ended when a second process of its name started",
                PROVERS[0]
            );
            if Instant::now() >= ends {
                break;
            }
        }
        Ok(())
    }
}

/// Returns the file whose presence makes every program fail.
fn away(folder: &Path) -> std::path::PathBuf {
    folder.join("away")
}

/// Kills these processes at once, and starts them again after `lasts`.
async fn killed(deployment: &mut Deployment, labels: &[String], lasts: Duration) {
    labels.iter().for_each(|label| deployment.service(label).kill());
    sleep(lasts).await;
    labels
        .iter()
        .for_each(|label| deployment.service_mut(label).restart());
}
