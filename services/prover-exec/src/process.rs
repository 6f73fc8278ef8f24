//! Running a program to its end, or killing the program and its descendants.

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

/// Time for which stderr is still read after the program has ended. The pipe closes at once, unless a
/// process that left the group holds it open.
const REST: Duration = Duration::from_millis(200);

/// Result of running a program.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Last part of stderr, at most [`TEXT_LEN_MAX`] bytes, trimmed.
    pub(crate) stderr: String,
}

/// Runs a command in its own process group. The whole group is killed when the program ends or this future
/// is dropped, so no process that stayed in the group outlives the call.
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
    // Output still unread after the timeout is dropped.
    let _ = timeout(REST, rest).await;
    Ok(Ended {
        status,
        stderr: stderr.text(),
    })
}

/// A program and its process group, which is killed on drop.
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
            // An error means that the group is empty already.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The leader's handle is dropped along with this value, and then the runtime reaps the process.
        self.kill();
    }
}

/// Last bytes of a stream, which is drained continuously so that the writer never blocks.
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
