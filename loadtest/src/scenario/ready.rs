//! How soon a prover starts a task that is ready, beside one bare hop, and where else a block's time
//! goes.
//!
//! *Ready* is the moment at which the broker has stored the released task, *started* the one at which
//! the prover's code is called. The bare hop is the same in the floor: from stored to received. Proving
//! takes long enough that the released task can be looked up while it is in its stream.

use crate::{
    floor::{self, Floor, Passed},
    record::Context,
    stand::{self, Arrivals, Done, Stand},
    stats::Windows,
};
use anyhow::Context as _;
use futures::{StreamExt, stream::FuturesUnordered};
use push0_bus::{Signals, Stream};
use push0_domain::{
    message::Task,
    subject::{self, Kind},
};
use std::{collections::HashMap, time::Duration};

const PROVE: Duration = Duration::from_millis(30);
/// How often a task is looked for that was heard.
const LOOKS: usize = 20;

/// The parts of a block's time, of push0 and of the floor.
#[derive(Default)]
struct Parts {
    /// From block stored to task stored.
    dispatch: Windows,
    /// From task stored to proving.
    start: Windows,
    /// From proved to record stored.
    finish: Windows,
}

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let prover = stand::prover("p1", 64, PROVE).env("PUSH0_MOCK__STAMP", true);
    let mut stand = Stand::start(stand::services().service(prover), &stand::single(false)).await?;
    stand.run(200, Arrivals::AtOnce).await?;
    let sizes = floor::sizes(&mut stand, false).await?;
    let mut floor = Floor::start(&stand, &sizes).await?;
    let rates: &[f64] = context.profile.pick(&[20.0], &[20.0, 100.0, 500.0]);
    for rate in rates {
        at_rate(context, &mut stand, &mut floor, *rate).await?;
    }
    Ok(())
}

async fn at_rate(context: &Context, stand: &mut Stand, floor: &mut Floor, rate: f64) -> anyhow::Result<()> {
    let count = (rate * context.profile.pick(4.0, 15.0)) as u64;
    let (mut ours, mut bare) = (Parts::default(), Parts::default());
    for window in 0..context.profile.pick(3, 5) {
        let arrivals = Arrivals::Rate {
            per_second: rate,
            seed: context.seed.wrapping_add(window),
        };
        let signals = stand.bus().listen([subject::all(Kind::Task)]).await?;
        let released = {
            let bus = stand.bus().clone();
            async move { released(&bus, signals, count).await }
        };
        let (released, records) = tokio::join!(released, stand.run(count, arrivals));
        let (released, records) = (released?, records?);
        let each = records.iter().map(|kept| {
            let done = Done::of(kept)?;
            let task = released.get(&done.number).context("a task that was not seen")?;
            let started = done.began_us.saturating_sub(*task);
            let finished = done.done_us.saturating_sub(done.began_us + done.busy_us);
            Ok([task.saturating_sub(done.stored_us), started, finished])
        });
        ours.push(&each.collect::<anyhow::Result<Vec<_>>>()?);
        let passed = floor.run(count, arrivals).await?;
        let parts = |p: &Passed| [p.second - p.first, p.hop(), p.last.saturating_sub(p.received)];
        bare.push(&passed.iter().map(parts).collect::<Vec<_>>());
    }
    let record = context.record("ready").with("rate", rate);
    let record = bare.start.put("hop_", ours.start.put("", record));
    record
        .ratio("ratio_p50", "p50_ms", "hop_p50_ms")
        .with("dispatch_p50_ms", ours.dispatch.ms(0.5))
        .with("floor_dispatch_p50_ms", bare.dispatch.ms(0.5))
        .with("finish_p50_ms", ours.finish.ms(0.5))
        .with("floor_finish_p50_ms", bare.finish.ms(0.5))
        .with("blocks", ours.start.len())
        .publish()
}

impl Parts {
    fn push(&mut self, each: &[[u64; 3]]) {
        let parts = [&mut self.dispatch, &mut self.start, &mut self.finish];
        for (at, part) in parts.into_iter().enumerate() {
            part.push(each.iter().map(|times| times[at]));
        }
    }
}

/// When the task of each block was stored: heard as it passes, then looked up.
async fn released(
    bus: &push0_bus::Bus,
    mut signals: Signals,
    count: u64,
) -> anyhow::Result<HashMap<u64, u64>> {
    let look_up = |subject: String| async move {
        // It is heard a moment before it is stored.
        for _ in 0..LOOKS {
            if let Some(task) = bus.last::<Task>(Stream::Tasks, &subject).await? {
                return anyhow::Ok((task.body?.header.id.stage.block.number, task.stored_at.0));
            }
        }
        anyhow::bail!("{subject} was gone: the prover was too quick")
    };
    let (mut seen, mut looking) = (HashMap::new(), FuturesUnordered::new());
    while (seen.len() as u64) < count {
        tokio::select! {
            signal = signals.next() => looking.push(look_up(signal?.subject().to_owned())),
            Some(found) = looking.next() => { seen.extend([found?]); }
        }
    }
    Ok(seen)
}
