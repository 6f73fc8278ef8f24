//! `push0 dead retry`: asks for another proof of the blocks of dead letters. `push0 retry` does the same by block.

use super::selection::Chosen;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use push0_bus::{Bus, Pipelines};
use push0_operate::{letters, retry};
use serde_json::json;

pub(super) async fn run(context: &Context, bus: &Bus, chosen: &Chosen) -> Result<(), Failure> {
    let pipelines = Pipelines::bind(bus).await?;
    let (blocks, unreadable) = retry::read(bus, letters::find(bus, &chosen.which(bus).await?).await?).await?;
    let mut refused = !unreadable.is_empty();
    for place in unreadable {
        output::note(&format!(
            "{}: a message cannot be retried: drop the letter",
            place.id
        ));
    }
    let mut retried = Vec::new();
    for (block, chosen) in blocks {
        // All letters of the block belong to one retry.
        let all = letters::list(bus, Some(&block.pipeline)).await?;
        let (mut all, _) = retry::read(bus, all).await?;
        let tasks = all.remove(&block).unwrap_or(chosen);
        let ids: Vec<String> = tasks.iter().map(|task| task.place.id.clone()).collect();
        match retry::retry(bus, &pipelines, &block, &tasks).await? {
            Ok(asked) => retried.push((ids, asked)),
            Err(reason) => {
                refused = true;
                output::note(&format!("{}: {reason}", ids.join(", ")));
            }
        }
    }
    if context.json {
        let retried = retried
            .iter()
            .map(|(ids, asked)| json!({ "ids": ids, "asked": asked }));
        output::json(&json!({ "retried": retried.collect::<Vec<_>>() }))?;
    } else {
        for (ids, asked) in retried {
            output::line(&format!("{}: {asked}", ids.join(", ")))?;
        }
    }
    if refused { Err(Failure::Told) } else { Ok(()) }
}
