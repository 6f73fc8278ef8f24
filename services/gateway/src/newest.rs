//! Reads the newest messages of a stream, one by one.

use push0_bus::{Bus, BusError, Kept, Stream};
use serde::de::DeserializeOwned;
use std::collections::VecDeque;

/// Returns what `convert` makes of the newest messages on `subjects`, oldest first, at most `limit`. One message is in
/// memory at a time. A stream cannot be read backwards, so its end is searched in windows, each twice as long as the one
/// after it: between the messages of a stream others may have been removed.
pub(crate) async fn read<T: DeserializeOwned, V>(
    bus: &Bus,
    stream: Stream,
    subjects: &str,
    limit: usize,
    convert: impl Fn(Kept<T>) -> Option<V>,
) -> Result<Vec<V>, BusError> {
    let mut end = bus.newest(stream).await? + 1;
    let mut width = limit as u64;
    let mut found: VecDeque<V> = VecDeque::new();
    while found.len() < limit && end > 1 {
        let begin = end.saturating_sub(width).max(1);
        let (mut from, mut part) = (begin, VecDeque::new());
        while let Some(kept) = bus.scan::<T>(stream, subjects, from, 1).await?.pop()
            && kept.sequence < end
        {
            from = kept.sequence + 1;
            part.extend(convert(kept));
            if part.len() + found.len() > limit {
                part.pop_front();
            }
        }
        part.append(&mut found);
        found = part;
        (end, width) = (begin, width.saturating_mul(2));
    }
    Ok(found.into())
}
