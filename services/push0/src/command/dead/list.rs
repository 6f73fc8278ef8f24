//! `push0 dead list`: lists dead letters.

use crate::context::{Context, known};
use crate::failure::Failure;
use crate::options::Of;
use crate::output;
use crate::table::{self, Align, NONE};
use push0_bus::{Bus, now};
use push0_domain::message::{Dead, DeadLetter};
use push0_operate::letters;

/// Maximum length of a reason in a row, in characters.
const REASON_LEN_MAX: usize = 80;

pub(super) async fn run(context: &Context, bus: &Bus, of: &Of) -> Result<(), Failure> {
    let mut found: Vec<DeadLetter> = Vec::new();
    let mut rows = Vec::new();
    for place in letters::list(bus, of.pipeline.as_ref()).await? {
        let Some(kept) = letters::read(bus, &place).await? else {
            continue;
        };
        match kept.body {
            Ok(letter) => {
                rows.push(row(&letter, place.pipeline.as_ref().map_or(NONE, |p| p.as_str())));
                found.push(letter);
            }
            Err(error) => output::note(&format!("{}: {error}", place.id)),
        }
    }
    // A forged letter may name a pipeline that does not exist.
    if let Some(name) = of.pipeline.as_ref().filter(|_| found.is_empty()) {
        known(bus, name).await?;
    }
    if context.json {
        return output::json(&found);
    }
    if rows.is_empty() {
        return output::line("no dead letters");
    }
    let columns = [
        ("id", Align::Left),
        ("pipeline", Align::Left),
        ("what", Align::Left),
        ("attempts", Align::Right),
        ("age", Align::Right),
        ("reason", Align::Left),
    ];
    output::line(&table::render(&columns, &rows))
}

fn row(letter: &DeadLetter, pipeline: &str) -> Vec<String> {
    let (what, attempts) = match &letter.what {
        Dead::Message { stream, sequence, .. } => (format!("message {sequence} of {stream}"), NONE.into()),
        Dead::Task { retry, history } => {
            let stage = &retry.stage;
            let task = format!(
                "{} {}/{}/{}",
                stage.block, stage.proof_type, stage.stage, retry.tasks.first
            );
            (task, history.len().to_string())
        }
    };
    let reason = letter.reason.lines().next().unwrap_or_default();
    vec![
        letter.id.clone(),
        pipeline.into(),
        what,
        attempts,
        table::span(now().since(letter.at)),
        reason.chars().take(REASON_LEN_MAX).collect(),
    ]
}
