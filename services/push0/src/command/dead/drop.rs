//! `push0 dead drop`: deletes dead letters.

use super::selection::Chosen;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use push0_bus::{Bus, Stream};
use push0_operate::letters;
use serde_json::json;

pub(super) async fn run(context: &Context, bus: &Bus, chosen: &Chosen) -> Result<(), Failure> {
    let found = letters::find(bus, &chosen.which(bus).await?).await?;
    let mut dropped = 0;
    for place in &found {
        dropped += bus.purge(Stream::Dead, &place.subject).await?;
    }
    if context.json {
        return output::json(&json!({ "dropped": dropped }));
    }
    output::line(&format!("{dropped} dead letter(s) dropped"))
}
