//! Faults of a broker, and the stream or role that the broker leads.

use push0_harness::NatsCluster;
use std::time::Duration;

/// Time for which a broker is in trouble.
pub(super) const LASTS: Duration = Duration::from_secs(15);
/// Number of brokers killed one after another.
const KILLS: usize = 4;
/// Time for which each killed broker is down.
const DOWN: Duration = Duration::from_secs(2);
/// Duration of a fault with several kills, including the restarts in between.
const KILLS_LAST: Duration = Duration::from_secs(30);

/// Faults of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// SIGSTOP, and a later SIGCONT.
    Frozen,
    /// SIGKILL, and a later restart.
    Killed,
    /// Cut between the broker and the two others.
    CutFromPeers,
    /// Cut between the broker and all clients.
    CutFromClients,
    /// Cut in one direction between the broker and the two others: outgoing and incoming in turn.
    CutOneWay,
    /// Kills of one broker after another, each after the one before has caught up.
    KilledInTurn,
    /// Kills of one broker after another, each as soon as the one before is back, whether or not it
    /// has caught up.
    KilledOverlapping,
}

impl Fault {
    /// Returns all faults in order.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        <Self as clap::ValueEnum>::value_variants().iter().copied()
    }

    /// Returns the name in results and on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Killed => "killed",
            Self::CutFromPeers => "cut-from-peers",
            Self::CutFromClients => "cut-from-clients",
            Self::CutOneWay => "cut-one-way",
            Self::KilledInTurn => "killed-in-turn",
            Self::KilledOverlapping => "killed-overlapping",
        }
    }

    /// Returns whether a single broker is in trouble, once.
    pub(super) fn is_of_one_broker(self) -> bool {
        !matches!(self, Self::KilledInTurn | Self::KilledOverlapping)
    }

    /// Returns the duration of the fault.
    pub(super) fn lasts(self) -> Duration {
        match self {
            Self::KilledInTurn | Self::KilledOverlapping => KILLS_LAST,
            _ => LASTS,
        }
    }

    /// Puts broker `victim` into trouble and out of it again. One-way cuts alternate between
    /// the two directions.
    pub(super) async fn carry_out(self, cluster: &mut NatsCluster, victim: usize, time: u32) {
        match self {
            Self::Frozen => cluster.server(victim).pause(),
            Self::Killed => cluster.kill(victim),
            Self::CutFromPeers => cluster.cut_from_peers(victim),
            Self::CutFromClients => cluster.cut_from_clients(victim),
            Self::CutOneWay if time.is_multiple_of(2) => cluster.mute(victim),
            Self::CutOneWay => cluster.deafen(victim),
            Self::KilledInTurn | Self::KilledOverlapping => return self.kill_several(cluster, victim).await,
        }
        tokio::time::sleep(LASTS).await;
        match self {
            Self::Frozen => cluster.server(victim).resume(),
            Self::Killed => cluster.restart(victim).await,
            _ => cluster.heal(victim),
        }
    }

    async fn kill_several(self, cluster: &mut NatsCluster, first: usize) {
        for at in first..first + KILLS {
            let victim = at % cluster.size();
            cluster.kill(victim);
            tokio::time::sleep(DOWN).await;
            if self == Self::KilledInTurn {
                cluster.restart(victim).await;
            } else {
                cluster.server_mut(victim).restart().await;
            }
        }
    }
}

/// The stream that the broker in trouble leads; `None` for JetStream itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Led(Option<&'static str>);

/// Roles whose loss hurts most: JetStream itself, the streams on a block's path, and the services' roles.
const LED: [Led; 6] = [
    Led(None),
    Led(Some("PUSH0_PROOFS")),
    Led(Some("PUSH0_RESULTS")),
    Led(Some("PUSH0_TASKS")),
    Led(Some("PUSH0_BLOCKS")),
    Led(Some("KV_push0_state")),
];

impl Led {
    /// Returns each role in turn.
    pub(super) fn nth(time: u32) -> Self {
        let at = usize::try_from(time).unwrap_or_default() % LED.len();
        LED[at]
    }

    /// Returns the stream; `None` for JetStream itself.
    pub(super) fn stream(self) -> Option<&'static str> {
        self.0
    }

    /// Returns the name used in results.
    pub(super) fn name(self) -> &'static str {
        self.0.unwrap_or("meta")
    }
}
