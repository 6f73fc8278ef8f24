//! Streams with their fill and copies.

use super::model::{Problem, StreamStatus};
use crate::failure::Failure;
use crate::room;
use push0_bus::{Bus, BusError, Level, Standing};
use std::collections::BTreeMap;

/// Reads all streams. Their trouble goes to the problems, the same trouble of several streams as one.
pub(super) async fn read(bus: &Bus, problems: &mut Vec<Problem>) -> Vec<StreamStatus> {
    let mut streams = Vec::new();
    let mut troubles = BTreeMap::<String, Vec<String>>::new();
    let mut levels = Vec::new();
    for (name, standing) in bus.standings().await {
        match standing {
            Ok(standing) => {
                if let Some(trouble) = standing.trouble() {
                    troubles.entry(trouble.to_string()).or_default().push(name);
                }
                levels.push((standing.stream.clone(), standing.level));
                streams.push(status(standing));
            }
            Err(error) => {
                troubles.entry(unanswered(error)).or_default().push(name);
            }
        }
    }
    let told = troubles
        .iter()
        .map(|(trouble, names)| format!("{}: {trouble}", names.join(", ")));
    problems.extend(told.map(Problem::new));
    let levels: Vec<(&str, Level)> = levels
        .iter()
        .map(|(name, level)| (name.as_str(), *level))
        .collect();
    problems.extend(room::waits(&levels).into_iter().map(Problem::new));
    streams
}

/// Returns the trouble of a stream with unknown copies. Streams with the same reason are told as one, so their names stay out.
fn unanswered(error: BusError) -> String {
    let reason = match error {
        BusError::Unavailable { reason, .. } => reason,
        other => Failure::from(other).text(),
    };
    format!("no answer about the copies ({reason}); most of the brokers may be away")
}

fn status(standing: Standing) -> StreamStatus {
    StreamStatus {
        messages: standing.level.messages,
        bytes: standing.level.bytes,
        bytes_max: standing.level.bytes_max,
        copies: standing.copies.len().max(1),
        copies_current: match &standing.copies[..] {
            [] => 1,
            copies => copies.iter().filter(|copy| copy.is_complete()).count(),
        },
        name: standing.stream,
        leader: standing.leader,
    }
}
