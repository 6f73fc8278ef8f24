//! `push0 retry`: proves dead blocks again, and shows how that goes.

use crate::block_range::{BlockRange, BlocksArg};
use crate::context::{Context, known};
use crate::failure::Failure;
use crate::options::Of;
use crate::progress::Progress;
use crate::record::Filter;
use crate::{output, record, records, retrying, work_in_flight};
use clap::Args;
use push0_bus::{Bus, Pipelines, Seldom, now};
use push0_domain::PipelineId;
use push0_operate::letters;
use push0_operate::retry::{self, DeadBlock, DeadTask};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Interval of the looks at what the blocks wait for. The bar of a terminal shows each.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Longest distance between lines about the same blocks, where nothing changes but the number of the attempt.
const SAY_SELDOM: Duration = Duration::from_secs(640);
/// How many waiting blocks a message names.
const NAMED_MAX: usize = 5;
/// Interval of the looks at blocks that are proved again.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Args, Debug)]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    of: Of,
    /// Block numbers, FIRST..LAST with both included, or 0x and the beginning of a hash. Blocks that are not dead are
    /// left alone.
    #[arg(value_name = "BLOCK|FIRST..LAST")]
    blocks: Vec<BlocksArg>,
    /// All blocks that died within this time, such as 2h.
    #[arg(long, value_name = "DURATION", conflicts_with = "blocks")]
    since: Option<humantime::Duration>,
    /// Return as soon as the work is asked for.
    #[arg(long)]
    no_wait: bool,
}

type Chosen = BTreeMap<DeadBlock, Vec<DeadTask>>;

pub(crate) async fn run(context: &Context, args: &RetryArgs) -> Result<(), Failure> {
    if args.blocks.is_empty() && args.since.is_none() {
        return Err(Failure::usage(
            "which blocks? name them as NUMBER or FIRST..LAST, or give --since 2h for all that died within that time",
        ));
    }
    let bus = context.bus().await?;
    let chosen = match args.since {
        Some(since) => {
            if let Some(name) = &args.of.pipeline {
                known(&bus, name).await?;
            }
            died_since(&bus, args.of.pipeline.as_ref(), *since).await?
        }
        None => {
            let pipeline = context.pipeline(&bus, &args.of).await?;
            let mut numbers = Vec::new();
            for blocks in &args.blocks {
                numbers.push(blocks.numbers(&bus, &pipeline).await?);
            }
            of_numbers(&bus, &pipeline, &numbers).await?
        }
    };
    if chosen.is_empty() {
        return Err(Failure::failed(
            "none of these blocks is dead: see `push0 dead list`",
        ));
    }
    let pipelines = Pipelines::bind(&bus).await?;
    let (mut asked, mut refused) = (Vec::new(), false);
    for (block, tasks) in &chosen {
        match retry::retry(&bus, &pipelines, block, tasks).await? {
            Ok(work) => {
                output::note(&format!("{}: {work}", name(block)));
                asked.push((block, work));
            }
            Err(reason) => {
                refused = true;
                output::note(&format!("{}: {reason}", name(block)));
            }
        }
    }
    if context.json {
        let asked = asked
            .iter()
            .map(|(block, work)| json!({ "block": block, "asked": work }));
        output::json(&json!({ "retried": asked.collect::<Vec<_>>() }))?;
    }
    if !args.no_wait {
        let blocks = asked.into_iter().map(|(block, _)| block).collect();
        refused |= !all_end(&bus, blocks).await?;
    }
    if refused { Err(Failure::Told) } else { Ok(()) }
}

/// Returns the blocks whose letters were written within this time.
async fn died_since(bus: &Bus, pipeline: Option<&PipelineId>, since: Duration) -> Result<Chosen, Failure> {
    let (mut blocks, _) = retry::read(bus, letters::list(bus, pipeline).await?).await?;
    let from = now().minus(since);
    blocks.retain(|_, tasks| tasks.iter().any(|task| task.at >= from));
    Ok(blocks)
}

/// Returns the dead blocks among these numbers. Several letters or a record alone may say that a block is dead.
async fn of_numbers(bus: &Bus, pipeline: &PipelineId, numbers: &[BlockRange]) -> Result<Chosen, Failure> {
    let (mut blocks, _) = retry::read(bus, letters::list(bus, Some(pipeline)).await?).await?;
    let is_named = |block: &DeadBlock| {
        let mut named = numbers.iter();
        named.any(|range| block.first.number <= range.last && range.first <= block.last.number)
    };
    blocks.retain(|block, _| is_named(block));
    for range in numbers {
        let dead = Filter {
            outcome: Some("dead".into()),
            from: Some(range.first),
            to: Some(range.last),
            ..Filter::default()
        };
        for record in records::tail_of(bus, pipeline, &dead, usize::MAX).await? {
            let (first, last) = (record.emission.first, record.emission.last);
            let has_letter =
                |block: &DeadBlock| (block.first.number..=block.last.number).contains(&last.number);
            if !blocks.keys().any(has_letter) {
                let pipeline = pipeline.clone();
                blocks.insert(
                    DeadBlock {
                        pipeline,
                        first,
                        last,
                    },
                    Vec::new(),
                );
            }
        }
    }
    Ok(blocks)
}

/// A block that is proved again.
struct Open<'a> {
    block: &'a DeadBlock,
    /// Whether the last look found no work for the block, which may have been on its way just then.
    is_idle: bool,
}

/// Waits until every block is proved, or has no work left. Returns whether all are proved.
async fn all_end(bus: &Bus, blocks: Vec<&DeadBlock>) -> Result<bool, Failure> {
    let total = blocks.len();
    let open = |block| Open {
        block,
        is_idle: false,
    };
    let mut open: Vec<Open<'_>> = blocks.into_iter().map(open).collect();
    let (mut ended, mut all_proved) = (0, true);
    let progress = Progress::towards(total as u64, "blocks proved again");
    let mut say_at = Instant::now();
    let mut told = Told::nothing();
    while !open.is_empty() {
        tokio::time::sleep(LOOK_EVERY).await;
        let mut still = Vec::new();
        for Open { block, is_idle } in open {
            let is_proved = retry::is_proved(bus, block).await?;
            let is_idle_now = !is_proved && is_without_work(bus, block).await?;
            // Between two messages of its work, a block looks idle for a moment.
            let is_over = is_proved || is_idle && is_idle_now;
            if !is_over {
                let is_idle = is_idle_now;
                still.push(Open { block, is_idle });
                continue;
            }
            ended += 1;
            all_proved &= is_proved;
            let outcome = if is_proved {
                "proved"
            } else {
                "dead again, see `push0 dead list`"
            };
            progress.at(ended as u64);
            output::note(&format!("{}: {outcome} ({ended} of {total})", name(block)));
        }
        open = still;
        if Instant::now() >= say_at {
            let lines = waits(bus, &open).await?;
            if let Some(line) = lines.first() {
                progress.tells(line);
            }
            let news = told.news(lines, Instant::now().into_std());
            news.iter().for_each(|line| output::note(line));
            say_at = Instant::now() + SAY_EVERY;
        }
    }
    Ok(all_proved)
}

/// What was told of waiting blocks. A retry without an end would otherwise fill the terminal.
struct Told {
    lines: Vec<String>,
    /// Whether an attempt of another number is worth a line again.
    seldom: Seldom,
}

impl Told {
    fn nothing() -> Self {
        Self {
            lines: Vec::new(),
            seldom: Seldom::new(SAY_EVERY, SAY_SELDOM),
        }
    }

    /// Returns the lines that were not told yet: at once if they differ in more than numbers, and otherwise at a growing
    /// distance.
    fn news(&mut self, lines: Vec<String>, at: std::time::Instant) -> Vec<String> {
        let words = |line: &String| line.split(|c: char| c.is_ascii_digit()).collect::<String>();
        let known: BTreeSet<String> = self.lines.iter().map(words).collect();
        if lines.iter().any(|line| !known.contains(&words(line))) {
            self.seldom.reset();
        }
        let is_new = |line: &&String| !self.lines.contains(line);
        let news: Vec<String> = lines.iter().filter(is_new).cloned().collect();
        if news.is_empty() || !self.seldom.is_due(at) {
            return Vec::new();
        }
        self.lines = lines;
        news
    }
}

/// Returns what blocks wait for: their attempts, and held queues with their last error.
async fn waits(bus: &Bus, open: &[Open<'_>]) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for Open { block, .. } in open.iter().take(NAMED_MAX) {
        let waiting = work_in_flight::waiting(bus, &block.pipeline, block.key()).await?;
        if let Some(attempt) = retrying::attempt(bus, &waiting).await? {
            lines.push(format!("{}: attempt {attempt} is under way", name(block)));
        }
    }
    let mut holds = BTreeSet::new();
    for Open { block, .. } in open.iter().take(NAMED_MAX) {
        let numbers = block.first.number..=block.last.number;
        let of_block = retrying::held_queues(bus, &block.pipeline, numbers).await?;
        holds.extend(of_block.into_iter().map(|hold| (&block.pipeline, hold)));
    }
    for (pipeline, hold) in holds {
        lines.push(format!(
            "{pipeline}: {hold}; the retry goes on without this command too (docs/runbooks/queue-held.md)"
        ));
    }
    Ok(lines)
}

/// Returns whether no message asks for work on a block, or is about its result.
async fn is_without_work(bus: &Bus, block: &DeadBlock) -> Result<bool, Failure> {
    let found = work_in_flight::waiting(bus, &block.pipeline, block.key()).await?;
    Ok(found.is_empty())
}

fn name(block: &DeadBlock) -> String {
    let DeadBlock {
        pipeline,
        first,
        last,
    } = block;
    format!("{pipeline}: block {}", record::numbers(first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_without_end_is_told_at_a_growing_distance_and_a_change_at_once() {
        let begin = std::time::Instant::now();
        let mut told = Told::nothing();
        let mut tell = |seconds: u64, line: &str| {
            let at = begin + Duration::from_secs(seconds);
            !told.news(vec![line.to_owned()], at).is_empty()
        };
        let lines: Vec<u64> = (0..100)
            .map(|n| n * 10)
            .filter(|at| tell(*at, &format!("demo: block 7: attempt {at} is under way")))
            .collect();
        assert_eq!(lines, [0, 10, 30, 70, 150, 310, 630]);
        assert!(tell(1_000, "demo: the queue of zkVM vm is held"));
        assert!(!tell(1_010, "demo: the queue of zkVM vm is held"));
    }
}
