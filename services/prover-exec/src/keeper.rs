//! `prover-exec __keep`: the process that keeps one program.
//!
//! The keeper starts the program, reads its output, reports its end, and ends everything that the program
//! started: SIGTERM, the grace, SIGKILL. It does so as well when the adapter closes its end of the control
//! socket, and the kernel closes that end however the adapter dies. The keeper leaves when all are gone.

use crate::{
    family::{self, Blow},
    launch::Launch,
    output::{Log, Tail},
    report::{End, Ended, NotStarted, Order, Report},
};
use nix::{
    errno::Errno,
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};
use std::{
    ffi::OsString,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream as StdUnixStream, process::CommandExt},
    },
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::pipe},
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until, timeout},
};

/// Time for which output is still read after the program has ended. The pipes close at once, unless another
/// process holds them open.
const REST: Duration = Duration::from_millis(200);
/// How long a signal to all processes may take from the program, which fails of it, to the keeper.
const NOT_OURS_FOR: Duration = Duration::from_millis(50);
/// Pause between the first two rounds of SIGKILL: processes that end leave their children to the keeper. The pause doubles
/// up to the longest, for processes that a driver keeps from ending.
const ROUND: Duration = Duration::from_millis(20);
const ROUND_LONGEST: Duration = Duration::from_secs(2);

pub(crate) fn run(order: &str, program: &[OsString]) -> ExitCode {
    let kept = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(keep(order, program)));
    match kept {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("prover-exec: the keeper of a program failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn keep(order: &str, program: &[OsString]) -> io::Result<()> {
    let order: Order = serde_json::from_str(order).map_err(io::Error::other)?;
    // Tools that end processes by the adapter's name must not find the keeper.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_name(c"push0-keeper")?;
    family::become_subreaper()?;
    let control = StdUnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    control.set_nonblocking(true)?;
    let mut control = UnixStream::from_std(control)?;
    let mut not_ours = NotOurs::new()?;
    let mut children = signal(SignalKind::child())?;
    // The next adapter sweeps directories without a lock.
    let scratch = crate::foreign::open(&order.scratch, nix::fcntl::OFlag::O_DIRECTORY)?;
    scratch.try_lock_shared()?;
    let mut child = match start(&order, program) {
        Ok(child) => child,
        Err(reason) => {
            let report = Report::NotStarted(NotStarted {
                reason: reason.to_string(),
            });
            return say(&mut control, &report).await;
        }
    };
    let mut output = Output::of(&mut child, &order)?;
    let mut family = Family {
        program: Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?),
        end: None,
        is_empty: false,
    };
    let ended = loop {
        family.reap();
        if let Some(end) = family.end {
            break Some(end);
        }
        tokio::select! {
            _ = children.recv() => {}
            () = not_ours.next() => {}
            () = output.read(), if output.is_open() => {}
            () = closed(&mut control) => break None,
        }
    };
    match ended {
        Some(end) => {
            // Output still unread after the timeout goes to the log only.
            let _ = timeout(REST, async {
                while output.is_open() {
                    output.read().await;
                }
            })
            .await;
            output.note(&crate::classes::describe(end));
            let report = Report::Ended(Ended {
                end,
                stdout: output.stdout.text(),
                stderr: output.stderr.text(),
                was_signalled: end != End::Code(0) && not_ours.came().await,
                oom_killed: order.cgroup.as_deref().is_some_and(crate::cgroup::oom_killed),
                log_lost: output.log.lost(),
            });
            // An adapter that does not listen has died or lost its interest.
            let _ = say(&mut control, &report).await;
        }
        None => output.note("was told to stop"),
    }
    end_all(&mut family, &mut children, &mut output, &order).await;
    if let Some(cgroup) = &order.cgroup {
        crate::cgroup::remove(cgroup);
    }
    Ok(())
}

/// Signals that a service manager or a terminal sends to all processes of a service. They end no keeper: the adapter
/// decides when its programs end. A program that gets them as well may end of them.
struct NotOurs {
    signals: [Signal; 3],
    came: bool,
}

impl NotOurs {
    fn new() -> io::Result<Self> {
        Ok(Self {
            signals: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            ],
            came: false,
        })
    }

    async fn next(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.signals;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        self.came = true;
    }

    /// Returns whether any came. Waits a moment, because the program may have got it first.
    async fn came(&mut self) -> bool {
        if !self.came {
            let _ = timeout(NOT_OURS_FOR, self.next()).await;
        }
        self.came
    }
}

async fn say(control: &mut UnixStream, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    control.write_all(&line).await
}

/// Waits until the adapter closes its end: it never writes.
async fn closed(control: &mut UnixStream) {
    let mut nothing = [0; 1];
    while control.read(&mut nothing).await.is_ok_and(|read| read > 0) {}
}

/// Starts the program in a process group of its own, through `__program`.
fn start(order: &Order, program: &[OsString]) -> io::Result<Child> {
    let launch = serde_json::to_string(&Launch {
        keeper: std::process::id(),
        rlimits: order.rlimits,
        cgroup: order.cgroup.clone(),
    })?;
    let (mut told, theirs) = StdUnixStream::pair()?;
    let child = {
        // The parent's copies of the pipes and the socket close with this value.
        let mut command = Command::new(crate::program::this_program()?);
        command.arg("__program").arg(launch).arg("--").args(program);
        command
            .current_dir(&order.directory)
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?
    };
    let mut reason = String::new();
    told.read_to_string(&mut reason)?;
    if reason.is_empty() {
        Ok(child)
    } else {
        Err(io::Error::other(reason))
    }
}

/// The processes of the program, as the keeper has reaped them.
struct Family {
    program: Pid,
    end: Option<End>,
    is_empty: bool,
}

impl Family {
    /// Reaps all children that have ended.
    fn reap(&mut self) {
        loop {
            let end = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, End::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, End::Signal(signal as i32)),
                Ok(WaitStatus::StillAlive) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => {
                    self.is_empty = true;
                    return;
                }
            };
            if end.0 == self.program {
                self.end = Some(end.1);
            }
        }
    }
}

/// Ends all processes that are left: SIGTERM, the grace, then SIGKILL until none is left.
async fn end_all(family: &mut Family, children: &mut Signal, output: &mut Output, order: &Order) {
    family.reap();
    if family.is_empty {
        return;
    }
    family::signal_all(Blow::Term, family.program);
    let mut next = Instant::now() + Duration::from_millis(order.grace_ms);
    let mut round = ROUND;
    loop {
        tokio::select! {
            _ = children.recv() => {}
            () = output.read(), if output.is_open() => {}
            () = sleep_until(next) => {
                if let Some(cgroup) = &order.cgroup {
                    crate::cgroup::kill(cgroup);
                }
                family::signal_all(Blow::Kill, family.program);
                next = Instant::now() + round;
                round = (round * 2).min(ROUND_LONGEST);
            }
        }
        family.reap();
        if family.is_empty {
            return;
        }
    }
}

/// Both output streams of the program. They are drained all the time, so that a writer never blocks.
struct Output {
    from_stdout: Option<pipe::Receiver>,
    from_stderr: Option<pipe::Receiver>,
    stdout: Tail,
    stderr: Tail,
    log: Log,
    buffers: [Vec<u8>; 2],
}

impl Output {
    fn of(child: &mut Child, order: &Order) -> io::Result<Self> {
        let receiver = |fd: Option<OwnedFd>| fd.map(pipe::Receiver::from_owned_fd).transpose();
        Ok(Self {
            from_stdout: receiver(child.stdout.take().map(OwnedFd::from))?,
            from_stderr: receiver(child.stderr.take().map(OwnedFd::from))?,
            stdout: Tail::default(),
            stderr: Tail::default(),
            log: Log::create(order.log.as_ref()),
            buffers: [vec![0; 16 << 10], vec![0; 16 << 10]],
        })
    }

    fn is_open(&self) -> bool {
        self.from_stdout.is_some() || self.from_stderr.is_some()
    }

    /// Reads the bytes of one of the streams.
    async fn read(&mut self) {
        let [of_stdout, of_stderr] = &mut self.buffers;
        tokio::select! {
            read = some(&mut self.from_stdout, of_stdout) => match read {
                Ok(read @ 1..) => {
                    self.stdout.push(&of_stdout[..read]);
                    self.log.write(&of_stdout[..read]);
                }
                _ => self.from_stdout = None,
            },
            read = some(&mut self.from_stderr, of_stderr) => match read {
                Ok(read @ 1..) => {
                    self.stderr.push(&of_stderr[..read]);
                    self.log.write(&of_stderr[..read]);
                }
                _ => self.from_stderr = None,
            },
        }
    }

    fn note(&mut self, what: &str) {
        self.log.write(format!("\n[the program {what}]\n").as_bytes());
    }
}

async fn some(from: &mut Option<pipe::Receiver>, buffer: &mut [u8]) -> io::Result<usize> {
    match from {
        Some(from) => from.read(buffer).await,
        None => std::future::pending().await,
    }
}
