//! Blocks from a file, one per line, followed as the file grows.
//!
//! A line ends with a newline; text after the last newline is still being written. A wrong line stops the
//! pipeline there, with the reason, until the file changes. The cursor counts lines, so lines already
//! read must not be edited.

use super::{
    ended::{Ended, OUT_OF_REACH_MAX},
    submitted,
};
use crate::{
    decide::{History, WINDOW},
    publisher::{Deposed, Publisher, Step, resume::Opened},
    status::{Status, Trouble},
};
use push0_runtime::Shutdown;
use std::{path::Path, time::Duration};
use tokio::{
    fs::File,
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader, SeekFrom},
    time::Instant,
};

/// Interval between checks of the file.
const POLL: Duration = Duration::from_millis(500);
/// Longest line, in bytes: the size limit of a submission by HTTP.
const LINE_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of lines read before their blocks are published.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Size and modification time of the file at the last check. An unchanged file is not read again.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    len: u64,
    modified: Option<std::time::SystemTime>,
}

/// Position up to which a file was read.
#[derive(Clone, Copy)]
struct Position {
    /// Number of lines read.
    line: u64,
    /// Number of bytes read; `None` when only the number of lines is known, as after a restart.
    offset: Option<u64>,
}

struct Reader<L> {
    lines: L,
    line: u64,
    offset: u64,
}

enum Next {
    Line(String),
    End,
}

/// Reasons why reading stopped.
enum Halt {
    Deposed(Deposed),
    /// The problem and its place. Only a change of the file helps.
    Wrong(String),
    /// The file cannot be read at the moment.
    Unreadable(String),
}

impl From<Deposed> for Halt {
    fn from(deposed: Deposed) -> Self {
        Self::Deposed(deposed)
    }
}

/// Waits until the file exists.
pub(super) async fn reach(path: &str, status: &mut Status) {
    while let Err(error) = look(Path::new(path)).await {
        status.blocked(Trouble::File, &format!("{path}: {error}"));
        tokio::time::sleep(POLL).await;
    }
}

pub(super) async fn run(path: &str, opened: Opened, stop: &Shutdown) -> Result<(), Ended> {
    let Opened {
        mut publisher,
        mut history,
    } = opened;
    let mut position = Position {
        line: publisher.lines_read(),
        offset: None,
    };
    let (mut seen, mut read_at) = (None, Instant::now());
    while !stop.is_requested() {
        let looked = look(Path::new(path)).await;
        let read = match looked {
            Ok(look) if seen == Some(look) => None,
            Ok(_) => Some(read(path, &mut position, &mut history, &mut publisher, stop).await),
            Err(ref error) => Some(Err(Halt::Unreadable(format!("{path}: {error}")))),
        };
        seen = looked.ok();
        match read {
            None => read_at = Instant::now(),
            Some(Ok(())) => {
                read_at = Instant::now();
                publisher.status.fine();
            }
            Some(Err(Halt::Deposed(deposed))) => return Err(deposed.into()),
            Some(Err(Halt::Wrong(reason))) => {
                read_at = Instant::now();
                publisher.status.blocked(Trouble::File, &reason);
            }
            Some(Err(Halt::Unreadable(reason))) => {
                publisher.status.blocked(Trouble::File, &reason);
                seen = None;
                if read_at.elapsed() >= OUT_OF_REACH_MAX {
                    return Err(Ended::OutOfReach);
                }
            }
        }
        tokio::select! {
            () = stop.requested() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
    Ok(())
}

async fn look(path: &Path) -> std::io::Result<Look> {
    let metadata = tokio::fs::metadata(path).await?;
    Ok(Look {
        len: metadata.len(),
        modified: metadata.modified().ok(),
    })
}

/// Publishes the new lines of the file. Blocks before a wrong line are published first.
async fn read(
    path: &str,
    position: &mut Position,
    history: &mut History,
    publisher: &mut Publisher,
    stop: &Shutdown,
) -> Result<(), Halt> {
    let mut reader = Reader::open(path, *position).await?;
    loop {
        let (mut steps, mut bytes) = (Vec::new(), 0);
        let end = loop {
            if steps.len() as u64 >= WINDOW || bytes >= BATCH_BYTES {
                break None;
            }
            match reader.next(path).await {
                Err(halt) => break Some(Err(halt)),
                Ok(Next::End) => break Some(Ok(())),
                Ok(Next::Line(text)) => {
                    bytes += text.len();
                    match accept(&text, reader.line, history, publisher) {
                        Ok(more) => steps.extend(more),
                        Err(reason) => {
                            break Some(Err(Halt::Wrong(format!("{path}:{}: {reason}", reader.line))));
                        }
                    }
                    *position = reader.position();
                }
            }
        };
        publisher.commit(steps).await?;
        match end {
            Some(end) => return end,
            None if stop.is_requested() => return Ok(()),
            None => {}
        }
    }
}

/// Returns the steps for a line; none for an empty line.
fn accept(text: &str, line: u64, history: &mut History, publisher: &Publisher) -> Result<Vec<Step>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let block = submitted::parse(text)?;
    let steps = submitted::steps(history, &publisher.status, &block).map_err(|e| e.to_string())?;
    publisher.status.head(block.offer.number);
    let with_line = |step| match step {
        Step::Publish(mut block) => {
            block.line = Some(line);
            Step::Publish(block)
        }
        cancel @ Step::Cancel { .. } => cancel,
    };
    Ok(steps.into_iter().map(with_line).collect())
}

impl Reader<BufReader<File>> {
    /// Opens the file and skips the lines already read.
    async fn open(path: &str, from: Position) -> Result<Self, Halt> {
        let unreadable = |error: std::io::Error| Halt::Unreadable(format!("{path}: {error}"));
        let mut file = File::open(path).await.map_err(unreadable)?;
        let shorter = |has: String| {
            Halt::Wrong(format!(
                "{path}: {has} less than were read before: expected a file that only grows"
            ))
        };
        if let Some(offset) = from.offset {
            let len = file.metadata().await.map_err(unreadable)?.len();
            if len < offset {
                return Err(shorter(format!("{len} bytes,")));
            }
            file.seek(SeekFrom::Start(offset)).await.map_err(unreadable)?;
        }
        let mut reader = Self {
            lines: BufReader::new(file),
            line: from.offset.map_or(0, |_| from.line),
            offset: from.offset.unwrap_or(0),
        };
        while reader.line < from.line {
            if let Next::End = reader.next(path).await? {
                return Err(shorter(format!("{} lines,", reader.line)));
            }
        }
        Ok(reader)
    }
}

impl<L: AsyncBufRead + Unpin> Reader<L> {
    fn position(&self) -> Position {
        Position {
            line: self.line,
            offset: Some(self.offset),
        }
    }

    /// Returns the next complete line, or the end.
    async fn next(&mut self, path: &str) -> Result<Next, Halt> {
        let at = self.line + 1;
        let wrong = |reason: String| Halt::Wrong(format!("{path}:{at}: {reason}"));
        // The disk or the network may fail for a moment, and the file need not change for the next try.
        let unreadable = |error: std::io::Error| Halt::Unreadable(format!("{path}:{at}: {error}"));
        let mut bytes = Vec::new();
        let mut limited = (&mut self.lines).take(LINE_MAX + 1);
        let read = limited.read_until(b'\n', &mut bytes).await;
        read.map_err(unreadable)?;
        if bytes.len() as u64 > LINE_MAX {
            return Err(wrong(format!("the line has more than {LINE_MAX} bytes")));
        }
        let len = bytes.len() as u64;
        if bytes.pop() != Some(b'\n') {
            return Ok(Next::End);
        }
        let text = String::from_utf8(bytes).map_err(|_| wrong("the line is not UTF-8".to_owned()))?;
        self.line += 1;
        self.offset += len;
        Ok(Next::Line(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        pin::Pin,
        task::{Context, Poll},
    };
    use tokio::io::{AsyncRead, ReadBuf};

    /// A file that fails once, in the middle of a line.
    struct Flaky(Vec<io::Result<&'static [u8]>>);

    impl AsyncRead for Flaky {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let read = self.0.pop().unwrap_or(Ok(b""));
            Poll::Ready(read.map(|bytes| buffer.put_slice(bytes)))
        }
    }

    #[tokio::test]
    async fn a_read_that_fails_is_tried_again_though_the_file_does_not_change() {
        let failed = Err(io::Error::from_raw_os_error(5));
        let mut reader = Reader {
            lines: BufReader::new(Flaky(vec![failed, Ok(b"12")])),
            line: 6,
            offset: 100,
        };
        let halt = reader.next("blocks.jsonl").await.err().expect("the read failed");
        let Halt::Unreadable(reason) = halt else {
            panic!("the file counts as wrong until it changes");
        };
        assert!(
            reason.starts_with("blocks.jsonl:7: Input/output error"),
            "{reason}"
        );
        assert_eq!(reader.position().offset, Some(100));
    }
}
