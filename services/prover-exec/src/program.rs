//! The adapter's side of a program: starts its keeper, hears its report, and knows when all has ended.

use crate::{
    cgroup::Cgroup,
    family,
    report::{Ended, NotStarted, Order, Report, TAIL_LEN},
    scratch::Folder,
};
use std::{
    collections::{BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    io::{self, Read},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::UnixStream,
    process::{Child, Command},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::{sleep, timeout},
};

/// Time between SIGKILL and the end of the last process: a driver may take long to give memory back.
const AFTER_KILL: Duration = Duration::from_secs(5);
/// Pause between two rounds of killing a keeper's orphans.
const ORPHANS_ROUND: Duration = Duration::from_millis(20);
/// Largest report: two tails, whose bytes JSON may write as six.
const REPORT_MAX: u64 = 16 * TAIL_LEN as u64;

/// Returns the program that this process runs. The link leads to it also after an upgrade replaced the file.
pub(crate) fn this_program() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        Ok("/proc/self/exe".into())
    } else {
        std::env::current_exe()
    }
}

/// The programs of this adapter with everything that they started. Clones share them.
#[derive(Clone, Debug)]
pub struct Programs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keeper: PathBuf,
    /// Whether all children of this process are keepers, or were left by keepers.
    reaps: bool,
    grace: Duration,
    /// One permit for each slot. A program that was told to end keeps its permit until it has ended.
    places: Arc<Semaphore>,
    running: Mutex<HashMap<u64, Running>>,
    count: AtomicU64,
}

/// A running program, with the resources that must outlive it.
#[derive(Debug)]
struct Running {
    control: StdUnixStream,
    keeper: i32,
    held: Held,
}

impl Running {
    /// Tells the program to end.
    fn tell(&self) {
        // The keeper has gone if the socket is closed.
        let _ = self.control.shutdown(Shutdown::Write);
        // A stopped keeper would hear nothing, and would hold the slot for ever: a program or a person at a terminal may
        // have stopped it.
        family::resume(self.keeper);
    }
}

/// The resources of a program until all its processes have ended.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) place: Place,
    pub(crate) folder: Arc<Folder>,
}

/// Room for one program.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held, never read")] OwnedSemaphorePermit);

/// Reason why a program has no end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRun {
    /// Nothing started.
    #[error(transparent)]
    NotStarted(#[from] NotStarted),
    /// The keeper died, and the program with it.
    #[error("the program was lost: its keeper (process push0-keeper) ended without a report")]
    Lost,
}

impl From<io::Error> for NotRun {
    fn from(error: io::Error) -> Self {
        Self::NotStarted(NotStarted {
            reason: error.to_string(),
        })
    }
}

impl Programs {
    /// `keeper` is the program `prover-exec`; `None` means this process's own.
    pub(crate) fn new(keeper: Option<PathBuf>, slots: u32, grace: Duration) -> io::Result<Self> {
        let reaps = keeper.is_none();
        if reaps {
            family::become_subreaper()?;
        }
        Ok(Self(Arc::new(Inner {
            keeper: keeper.map_or_else(this_program, Ok)?,
            reaps,
            grace,
            places: Arc::new(Semaphore::new(slots as usize)),
            running: Mutex::new(HashMap::new()),
            count: AtomicU64::new(0),
        })))
    }

    /// Waits for room, at most as long as `limit`: until one of the programs that were told to end has ended.
    /// Otherwise the next one would find the GPU taken.
    pub(crate) async fn place(&self, limit: Duration) -> Result<Place, NotStarted> {
        let limit = limit.min(self.0.grace + AFTER_KILL);
        match timeout(limit, self.0.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(Place(place)),
            _ => Err(NotStarted {
                reason: format!("an earlier program was told to end, and has not ended within {limit:?}"),
            }),
        }
    }

    /// Runs a program to its end. If this future is dropped, the program is told to end.
    pub(crate) async fn run(
        &self,
        held: Held,
        order: &Order,
        command: &[OsString],
        environment: impl FnOnce(&mut Command),
    ) -> Result<Ended, NotRun> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let _told = {
            // The parent's copy of the keeper's end closes with this value.
            let mut keeper = Command::new(&self.0.keeper);
            environment(&mut keeper);
            keeper
                .arg("__keep")
                .arg(serde_json::to_string(order).map_err(io::Error::other)?)
                .arg("--")
                .args(command.iter().map(OsStr::new))
                // A service manager's or terminal's signal to the adapter's group is not for the keeper.
                .process_group(0)
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::null())
                .stderr(Stdio::inherit());
            self.keep(keeper, ours.try_clone()?, held)?
        };
        ours.set_nonblocking(true)?;
        let mut line = Vec::new();
        let mut control = BufReader::new(UnixStream::from_std(ours)?).take(REPORT_MAX);
        if control.read_until(b'\n', &mut line).await.is_err() {
            return Err(NotRun::Lost);
        }
        match serde_json::from_slice(&line) {
            Ok(Report::Ended(ended)) => Ok(ended),
            Ok(Report::NotStarted(reason)) => Err(reason.into()),
            Err(_) => Err(NotRun::Lost),
        }
    }

    /// Starts a keeper, and keeps the program's resources until the keeper has ended. The returned value
    /// tells the program to end when it is dropped.
    fn keep(&self, mut keeper: Command, control: StdUnixStream, held: Held) -> io::Result<Told> {
        let number = self.0.count.fetch_add(1, Ordering::Relaxed);
        // Under the lock, so that no keeper is taken for another one's orphan.
        let mut running = self.running();
        let child = keeper.spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let entry = Running {
            control,
            keeper: id.unwrap_or_default(),
            held,
        };
        running.insert(number, entry);
        drop(running);
        #[expect(
            clippy::disallowed_methods,
            reason = "the task outlives its attempt, and `end` does its work at the end of the process"
        )]
        // spawn: outlives its attempt.
        tokio::spawn(self.clone().let_go(child, number));
        Ok(Told {
            programs: self.clone(),
            number,
        })
    }

    /// Waits for the end of a keeper, then frees its program's resources.
    async fn let_go(self, mut keeper: Child, number: u64) {
        let status = keeper.wait().await;
        if self.0.reaps && !status.is_ok_and(|status| status.success()) {
            self.end_orphans().await;
        }
        let ended = self.running().remove(&number);
        if let Some(Running { held, .. }) = ended {
            drop((held.cgroup, held.place));
            // Removing the folder takes as long as it is large.
            let _ = spawn_blocking(move || drop(held.folder)).await;
        }
    }

    /// Kills the orphans of a keeper that did not end in order.
    async fn end_orphans(&self) {
        let until = Instant::now() + AFTER_KILL;
        loop {
            let any = {
                let running = self.running();
                let keepers: BTreeSet<i32> = running.values().map(|running| running.keeper).collect();
                family::kill_children(&keepers)
            };
            if !any || Instant::now() > until {
                return;
            }
            sleep(ORPHANS_ROUND).await;
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, Running>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all programs to end and waits for that, at most the grace and 5 s. Called at the end of the
    /// process, when the runtime has gone.
    pub fn end(&self) {
        let running: Vec<Running> = self.running().drain().map(|(_, running)| running).collect();
        running.iter().for_each(Running::tell);
        let until = Instant::now() + self.0.grace + AFTER_KILL;
        for mut program in running {
            wait_for_end(&mut program.control, until);
        }
    }
}

/// Waits until the keeper has closed its end.
fn wait_for_end(control: &mut StdUnixStream, until: Instant) {
    let mut ignored = [0; 4096];
    if control.set_nonblocking(false).is_err() {
        return;
    }
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || control.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match control.read(&mut ignored) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// Tells the program to end on drop. After its end, this ends leftover processes.
struct Told {
    programs: Programs,
    number: u64,
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(running) = self.programs.running().get(&self.number) {
            running.tell();
        }
    }
}
