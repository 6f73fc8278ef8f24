//! Running a program to its end, or ending it: with all that it started.

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use push0_domain::message::TEXT_LEN_MAX;
use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, Command},
    time::timeout,
};

/// How long the rest of stderr is read after the end of the program. It is there at once, unless a
/// process that left the group holds the pipe open.
const REST: Duration = Duration::from_millis(200);

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// The end of what it wrote to stderr.
    pub(crate) stderr: String,
}

/// Runs a command in a process group of its own. When this is dropped, or the program has ended, the
/// whole group is killed: nothing that it started outlives it.
pub(crate) async fn run(mut command: Command) -> io::Result<Ended> {
    let child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut group = Group::of(child);
    let mut stderr = Tail::of(group.child.stderr.take());
    let status = loop {
        tokio::select! {
            status = group.child.wait() => break status?,
            () = stderr.read(), if stderr.is_open() => {}
        }
    };
    group.kill();
    let rest = async {
        while stderr.is_open() {
            stderr.read().await;
        }
    };
    // What could not be read in time is left out.
    let _ = timeout(REST, rest).await;
    Ok(Ended {
        status,
        stderr: stderr.text(),
    })
}

/// A program and its process group.
struct Group {
    child: Child,
    leader: Option<Pid>,
}

impl Group {
    fn of(child: Child) -> Self {
        let leader = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw);
        Self { child, leader }
    }

    fn kill(&mut self) {
        if let Some(leader) = self.leader.take() {
            // Nobody is left: as it should be.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The runtime reaps the leader, whose handle is dropped with this.
        self.kill();
    }
}

/// The end of a stream, read as it comes so that its writer never waits.
struct Tail {
    source: Option<ChildStderr>,
    kept: Vec<u8>,
    buffer: Vec<u8>,
}

impl Tail {
    fn of(source: Option<ChildStderr>) -> Self {
        Self {
            source,
            kept: Vec::new(),
            buffer: vec![0; 16 * 1024],
        }
    }

    fn is_open(&self) -> bool {
        self.source.is_some()
    }

    async fn read(&mut self) {
        let Some(source) = &mut self.source else { return };
        match source.read(&mut self.buffer).await {
            Ok(read @ 1..) => {
                self.kept.extend_from_slice(&self.buffer[..read]);
                self.kept.drain(..self.kept.len().saturating_sub(TEXT_LEN_MAX));
            }
            _ => self.source = None,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).trim().to_owned()
    }
}
