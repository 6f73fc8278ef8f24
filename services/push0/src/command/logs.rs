//! `push0 logs N`: prints the output of the programs that ran for one block.
//!
//! `prover-exec` keeps logs as files on its own machine. This command reads those of this machine, and says
//! where the others lie, as far as dead letters tell it.

use super::up::ATTEMPTS;
use crate::block_arg::BlockArg;
use crate::context::Context;
use crate::failure::Failure;
use crate::options::Of;
use crate::output;
use clap::Args;
use push0_bus::Bus;
use push0_domain::PipelineId;
use push0_domain::message::Dead;
use push0_domain::plain::plain;
use push0_operate::letters;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Words before the place of a log in the message of a failure.
const PLACE: &str = "whole output: ";

#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    of: Of,
    /// Number of the block, or 0x and the beginning of its hash.
    #[arg(value_name = "BLOCK")]
    block: BlockArg,
    /// Directory with the logs of `prover-exec` (its `exec.log_dir`) [default: that of `push0 up` in DIR].
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
}

/// Log of one attempt.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Log {
    attempt: u32,
    task: String,
    path: PathBuf,
    output: String,
}

#[derive(Serialize)]
struct Found {
    logs: Vec<Log>,
    /// Places named by failures, `HOST:PATH`, that are not among the logs.
    elsewhere: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: &LogsArgs) -> Result<(), Failure> {
    let bus = context.bus().await?;
    let pipeline = context.pipeline(&bus, &args.of).await?;
    let number = args.block.number(&bus, &pipeline).await?;
    let dir = args.log_dir.clone().unwrap_or_else(|| context.dir.join(ATTEMPTS));
    let logs = read(&dir, &pipeline, number)?;
    let mut elsewhere = places(&bus, &pipeline, number).await?;
    elsewhere.retain(|place| {
        !logs
            .iter()
            .any(|log| log.path.file_name() == Path::new(place).file_name())
    });
    let found = Found { logs, elsewhere };
    let is_empty = found.logs.is_empty() && found.elsewhere.is_empty();
    if context.json {
        output::json(&found)?;
        return if is_empty { Err(Failure::Told) } else { Ok(()) };
    }
    if is_empty {
        return Err(Failure::failed(format!(
            "no log of block {} in {}. Logs lie on the machines of its provers (`push0 block {0}` names them), in \
             their `exec.log_dir`; give that directory as --log-dir there. Only the adapter `exec` writes logs, and \
             old ones are removed",
            number,
            dir.display()
        )));
    }
    output::line(&render(&found))
}

fn render(found: &Found) -> String {
    let mut lines = Vec::new();
    for log in &found.logs {
        lines.push(format!(
            "== attempt {} at {}, {}",
            log.attempt,
            log.task,
            log.path.display()
        ));
        lines.push(log.output.trim_end().to_owned());
        lines.push(String::new());
    }
    for place in &found.elsewhere {
        lines.push(format!("== not on this machine, or removed: {place}"));
    }
    lines.join("\n")
}

/// Reads the logs of a block, the oldest first.
fn read(dir: &Path, pipeline: &PipelineId, number: u64) -> Result<Vec<Log>, Failure> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::failed(format!("{}: {error}", dir.display()))),
    };
    let mut logs: Vec<(SystemTime, Log)> = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let named = path
            .file_name()
            .and_then(|name| parse(name.to_str()?, pipeline, number));
        let Some((task, attempt)) = named else { continue };
        // A log may be removed meanwhile.
        let (Ok(bytes), Ok(data)) = (std::fs::read(&path), entry.metadata()) else {
            continue;
        };
        let log = Log {
            attempt,
            task,
            path,
            output: plain(&String::from_utf8_lossy(&bytes)),
        };
        logs.push((data.modified().unwrap_or(SystemTime::UNIX_EPOCH), log));
    }
    logs.sort_by_key(|(at, _)| *at);
    Ok(logs.into_iter().map(|(_, log)| log).collect())
}

/// Returns the task and the attempt of a log with this name, if it is about the block. The name is
/// `PIPELINE.FIRST-LAST.TYPE.STAGE.INDEX.ATTEMPT.UNIQUE.log`.
fn parse(name: &str, pipeline: &PipelineId, number: u64) -> Option<(String, u32)> {
    let parts: Vec<&str> = name.split('.').collect();
    let [of, blocks, proof_type, stage, index, attempt, _, "log"] = parts.as_slice() else {
        return None;
    };
    let (first, last) = blocks.split_once('-')?;
    let blocks = first.parse().ok()?..=last.parse().ok()?;
    let index: u32 = index.parse().ok()?;
    (*of == pipeline.as_str() && blocks.contains(&number))
        .then(|| Some((format!("{proof_type}/{stage} {index}"), attempt.parse().ok()?)))?
}

/// Returns the places of logs that the block's dead letters name. Their files are not opened: a failure's
/// text is the prover's.
async fn places(bus: &Bus, pipeline: &PipelineId, number: u64) -> Result<Vec<String>, Failure> {
    let mut places = Vec::new();
    for place in letters::list(bus, Some(pipeline)).await? {
        let Some(kept) = letters::read(bus, &place).await? else {
            continue;
        };
        let Ok(letter) = kept.body else { continue };
        let Dead::Task { retry, history } = &letter.what else {
            continue;
        };
        if !retry.stage.numbers().contains(&number) {
            continue;
        }
        for record in history {
            if let Some((_, place)) = record.failure.message.rsplit_once(PLACE) {
                places.push(plain(place));
            }
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_found_by_its_name() {
        let pipeline: PipelineId = "demo".parse().unwrap();
        let of = |name: &str, number| parse(name, &pipeline, number);
        let range = "demo.5-8.main.prove.3.2.00ab12cd.log";
        let expected = Some(("main/prove 3".to_owned(), 2));
        assert_eq!(
            (of(range, 5), of(range, 8), of(range, 9)),
            (expected.clone(), expected, None)
        );
        assert_eq!(of("other.5-8.main.prove.3.2.00ab12cd.log", 5), None);
        assert_eq!(of("notes.txt", 5), None);
    }

    #[test]
    fn logs_are_read_without_terminal_escapes() {
        let dir = tempfile::tempdir().unwrap();
        let name = "demo.7-7.main.prove.0.1.00ab12cd.log";
        std::fs::write(dir.path().join(name), "\u{1b}[31mred\u{1b}[0m alert").unwrap();
        let pipeline: PipelineId = "demo".parse().unwrap();
        let logs = read(dir.path(), &pipeline, 7).ok().unwrap();
        assert_eq!(logs[0].output, "red alert");
        assert_eq!(read(dir.path(), &pipeline, 8).ok().unwrap(), []);
        assert_eq!(read(&dir.path().join("nowhere"), &pipeline, 7).ok().unwrap(), []);
    }
}
