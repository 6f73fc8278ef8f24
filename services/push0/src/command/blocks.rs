//! `push0 blocks`: lists emitted blocks, with the time spent on each.

use crate::context::Context;
use crate::failure::Failure;
use crate::options::Of;
use crate::records::{self, Record, RecordJson};
use crate::{output, table};
use clap::Args;
use push0_bus::Bus;
use push0_domain::PipelineId;
use std::time::Duration;

/// Poll interval of `--follow`. Blocks are seconds apart.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// Number of earlier rows used for the column widths: one screenful.
const ALIGNED_ROWS: usize = 50;

#[derive(Args, Debug)]
pub(crate) struct BlocksArgs {
    #[command(flatten)]
    of: Of,
    /// Number of newest records to show.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    last: u32,
    /// Keep running and print new records as they are stored.
    #[arg(long)]
    follow: bool,
}

pub(crate) async fn run(context: &Context, args: &BlocksArgs) -> Result<(), Failure> {
    let bus = context.bus().await?;
    let pipeline = context.pipeline(&bus, &args.of).await?;
    let found = records::tail(&bus, &pipeline, args.last as usize).await?;
    if found.is_empty() && !args.follow && !context.json {
        return output::line(&format!("{pipeline}: no block has been emitted yet"));
    }
    let mut shown = Shown::default();
    shown.print(context, &found, true)?;
    if args.follow {
        follow(context, &bus, &pipeline, shown, found.last()).await
    } else {
        Ok(())
    }
}

async fn follow(
    context: &Context,
    bus: &Bus,
    pipeline: &PipelineId,
    mut shown: Shown,
    last: Option<&Record>,
) -> Result<(), Failure> {
    let mut next = last.map_or(1, |record| record.sequence + 1);
    loop {
        // Errors are ignored: the broker may restart meanwhile.
        if let Ok((found, after)) = records::from(bus, pipeline, next).await {
            next = after;
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
        self.0.extend(found.iter().map(records::row));
        let text = table::render(&records::COLUMNS, &self.0);
        let skipped = if header {
            0
        } else {
            text.lines().count().saturating_sub(found.len())
        };
        self.0.drain(..self.0.len().saturating_sub(ALIGNED_ROWS));
        output::line(&text.lines().skip(skipped).collect::<Vec<_>>().join("\n"))
    }
}
