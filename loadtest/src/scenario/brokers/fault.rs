//! What befalls a broker, and what it leads.

use super::LASTS;
use push0_harness::NatsCluster;
use std::time::Duration;

/// How many brokers are killed one after the other.
const KILLS: usize = 4;
/// How long one of them is down.
const DOWN: Duration = Duration::from_secs(2);
/// How long a fault of several kills lasts, with the starts in between.
const KILLS_LAST: Duration = Duration::from_secs(30);

/// What befalls a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// SIGSTOP, and SIGCONT later.
    Frozen,
    /// SIGKILL, and started again later.
    Killed,
    /// It and the two others hear nothing of each other.
    CutFromPeers,
    /// It and the clients hear nothing of each other.
    CutFromClients,
    /// The two others do not hear it, or it does not hear them.
    CutOneWay,
    /// One after the other is killed when the one before has caught up.
    KilledInTurn,
    /// One after the other is killed as soon as the one before is back, whether or not it has caught up.
    KilledOverlapping,
}

impl Fault {
    /// All of them.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        <Self as clap::ValueEnum>::value_variants().iter().copied()
    }

    /// Its name in results and on the command line.
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

    /// How long it lasts.
    pub(super) fn lasts(self) -> Duration {
        match self {
            Self::KilledInTurn | Self::KilledOverlapping => KILLS_LAST,
            _ => LASTS,
        }
    }

    /// Puts broker `victim` into trouble and out of it again. One way is cut as often as the other.
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

/// What the broker leads that is in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Led(Option<&'static str>);

/// What hurts most: JetStream itself, the way of a block, and the roles.
const LED: [Led; 6] = [
    Led(None),
    Led(Some("PUSH0_PROOFS")),
    Led(Some("PUSH0_RESULTS")),
    Led(Some("PUSH0_TASKS")),
    Led(Some("PUSH0_BLOCKS")),
    Led(Some("KV_push0_state")),
];

impl Led {
    /// Each in turn.
    pub(super) fn nth(time: u32) -> Self {
        let at = usize::try_from(time).unwrap_or_default() % LED.len();
        LED[at]
    }

    /// The stream; none for JetStream itself.
    pub(super) fn stream(self) -> Option<&'static str> {
        self.0
    }

    /// Its name in results.
    pub(super) fn name(self) -> &'static str {
        self.0.unwrap_or("meta")
    }
}
