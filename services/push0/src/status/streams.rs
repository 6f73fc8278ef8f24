//! Streams with their fill and copies.

use super::model::{Problem, StreamStatus};
use push0_bus::{Bus, Standing};
use push0_operate::judge;

/// Reads all streams. Their trouble goes to the problems, the same trouble of several streams as one.
pub(super) async fn read(bus: &Bus, problems: &mut Vec<Problem>) -> Vec<StreamStatus> {
    let standings = bus.standings().await;
    problems.extend(judge::streams(&standings).into_iter().map(Problem::new));
    let readable = standings.into_iter().filter_map(|(_, standing)| standing.ok());
    readable.map(status).collect()
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
