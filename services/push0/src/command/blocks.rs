//! `push0 blocks`: lists emitted blocks, with the time spent on each.

use crate::context::Context;
use crate::failure::Failure;
use crate::options::Of;
use crate::record::{self, Filter, Record, RecordJson};
use crate::records;
use crate::{output, table};
use clap::Args;
use push0_bus::Bus;
use push0_domain::{PipelineId, ProverId};
use std::time::Duration;

/// Poll interval of `--follow`. Blocks are seconds apart.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// Number of earlier rows used for the column widths: one screenful.
const ALIGNED_ROWS: usize = 50;

#[derive(Args, Debug)]
pub(crate) struct BlocksArgs {
    #[command(flatten)]
    of: Of,
    /// Only blocks that ended so.
    #[arg(long, value_name = "OUTCOME", value_parser = ["proved", "dead", "cancelled", "reorged", "too-late"])]
    outcome: Option<String>,
    /// Only blocks with a proof of this prover or verifier.
    #[arg(long, value_name = "ID")]
    prover: Option<ProverId>,
    /// Only blocks from this number on.
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// Only blocks up to this number.
    #[arg(long, value_name = "N")]
    to: Option<u64>,
    /// Show the oldest records after this sequence of PUSH0_PROOFS instead of the newest: for consumers, which find the
    /// sequence of each record in the output of --json.
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<u64>,
    /// Number of records to show.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    last: u32,
    /// Keep running and print new records as they are stored.
    #[arg(long)]
    follow: bool,
}

pub(crate) async fn run(context: &Context, args: &BlocksArgs) -> Result<(), Failure> {
    let bus = context.bus().await?;
    let pipeline = context.pipeline(&bus, &args.of).await?;
    let filter = args.filter();
    let count = args.last as usize;
    let found = match args.after {
        Some(sequence) => after(&bus, &pipeline, &filter, sequence, count).await?,
        None => records::tail_of(&bus, &pipeline, &filter, count).await?,
    };
    if found.is_empty() && !args.follow && !context.json {
        let said = match records::newest(&bus, &pipeline).await? {
            Some(newest) => format!(
                "no stored record matches; the output goes on at block {}",
                newest.emission.next
            ),
            None => "no block has been emitted yet".to_owned(),
        };
        return output::line(&format!("{pipeline}: {said}"));
    }
    let mut shown = Shown::default();
    shown.print(context, &found, true)?;
    if args.follow {
        let next = match (found.last(), args.after) {
            (Some(last), _) => last.sequence + 1,
            (None, Some(sequence)) => sequence.saturating_add(1),
            (None, None) => 1,
        };
        follow(context, &bus, &pipeline, &filter, shown, next).await
    } else {
        Ok(())
    }
}

impl BlocksArgs {
    fn filter(&self) -> Filter {
        Filter {
            outcome: self.outcome.as_ref().map(|outcome| outcome.replace('-', " ")),
            prover: self.prover.clone(),
            from: self.from,
            to: self.to,
        }
    }
}

/// Returns the first records after a sequence that are wanted, in the order of the stream.
async fn after(
    bus: &Bus,
    pipeline: &PipelineId,
    filter: &Filter,
    sequence: u64,
    count: usize,
) -> Result<Vec<Record>, Failure> {
    let mut found = Vec::new();
    let mut next = sequence.saturating_add(1);
    while found.len() < count {
        let (records, behind) = records::from(bus, pipeline, next).await?;
        if behind == next {
            break;
        }
        next = behind;
        found.extend(records.into_iter().filter(|record| filter.fits(record)));
    }
    found.truncate(count);
    Ok(found)
}

async fn follow(
    context: &Context,
    bus: &Bus,
    pipeline: &PipelineId,
    filter: &Filter,
    mut shown: Shown,
    mut next: u64,
) -> Result<(), Failure> {
    loop {
        // Errors are ignored: the broker may restart meanwhile.
        if let Ok((mut found, after)) = records::from(bus, pipeline, next).await {
            next = after;
            found.retain(|record| filter.fits(record));
            shown.print(context, &found, false)?;
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

/// The rows printed last. New rows are laid out together with them, so that columns stay aligned.
#[derive(Default)]
struct Shown(Vec<Vec<String>>);

impl Shown {
    fn print(&mut self, context: &Context, found: &[Record], header: bool) -> Result<(), Failure> {
        if context.json {
            return found
                .iter()
                .try_for_each(|record| output::json(&RecordJson::from(record)));
        }
        match self.lines(found, header) {
            Some(lines) => output::line(&lines),
            None => Ok(()),
        }
    }

    /// Returns the rows of these records, below a header for the first ones; `None` if there is nothing to print.
    fn lines(&mut self, found: &[Record], header: bool) -> Option<String> {
        if found.is_empty() && !header {
            return None;
        }
        self.0.extend(found.iter().map(record::row));
        let text = table::render(&record::COLUMNS, &self.0);
        let skipped = if header {
            0
        } else {
            text.lines().count().saturating_sub(found.len())
        };
        self.0.drain(..self.0.len().saturating_sub(ALIGNED_ROWS));
        Some(text.lines().skip(skipped).collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_without_a_new_record_prints_nothing() {
        let mut shown = Shown::default();
        let header = shown.lines(&[], true);
        assert!(header.is_some_and(|lines| lines.starts_with("BLOCK")));
        assert_eq!(shown.lines(&[], false), None);
    }
}
