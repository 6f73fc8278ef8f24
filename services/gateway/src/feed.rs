//! The numbered stream of changes: each is encoded once, kept for a while, and given to all clients.

use crate::view::Change;
use bytes::Bytes;
use std::collections::VecDeque;
use tokio::sync::broadcast;

/// Bytes of changes kept for clients that come back.
const KEPT_BYTES: usize = 8 << 20;
/// Changes that a client may be behind before it starts over from a snapshot.
const BEHIND_MAX: usize = 128;

/// An encoded event of the stream.
pub type Frame = Bytes;

/// The changes since the start of the process.
#[derive(Debug)]
pub struct Feed {
    /// Differs between processes, so that ids of another one are told apart.
    epoch: u32,
    newest: u64,
    kept: VecDeque<Frame>,
    bytes: usize,
    sender: broadcast::Sender<Frame>,
}

impl Feed {
    /// Creates a feed without changes. `epoch` is random.
    pub fn new(epoch: u32) -> Self {
        Self {
            epoch,
            newest: 0,
            kept: VecDeque::new(),
            bytes: 0,
            sender: broadcast::Sender::new(BEHIND_MAX),
        }
    }

    /// Returns the id of the newest change.
    pub fn id(&self) -> String {
        format!("{:08x}-{}", self.epoch, self.newest)
    }

    /// Encodes a change and gives it to all clients.
    ///
    /// # Errors
    /// The change cannot be encoded.
    pub fn publish(&mut self, change: &Change) -> Result<(), serde_json::Error> {
        self.newest += 1;
        let frame = encode(&self.id(), "change", &serde_json::to_string(change)?);
        self.bytes += frame.len();
        self.kept.push_back(frame.clone());
        while self.bytes > KEPT_BYTES {
            let Some(oldest) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
        }
        // Without clients, the channel drops the frame.
        let _ = self.sender.send(frame);
        Ok(())
    }

    /// Returns the changes after `last`, and those to come. `None` for the former if the client must start over from
    /// a snapshot, because it names no change of this process or one that is not kept any more.
    pub fn follow(&self, last: Option<&str>) -> (Option<Vec<Frame>>, broadcast::Receiver<Frame>) {
        let missed = last.and_then(|last| {
            let (epoch, number) = last.split_once('-')?;
            let number: u64 = number.parse().ok()?;
            let is_ours = u32::from_str_radix(epoch, 16) == Ok(self.epoch) && number <= self.newest;
            let behind = usize::try_from(self.newest - number.min(self.newest)).ok()?;
            let is_kept = behind <= self.kept.len();
            (is_ours && is_kept).then(|| self.kept.range(self.kept.len() - behind..).cloned().collect())
        });
        (missed, self.sender.subscribe())
    }

    /// Returns the number of clients that follow.
    pub fn followers(&self) -> usize {
        self.sender.receiver_count()
    }
}

/// Encodes an event as the standard on server-sent events says. JSON text has no line breaks.
pub fn encode(id: &str, event: &str, data: &str) -> Frame {
    Bytes::from(format!("id: {id}\nevent: {event}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(at: u64) -> Change {
        Change {
            at,
            ..Change::default()
        }
    }

    #[test]
    fn a_client_that_comes_back_gets_all_that_it_missed() {
        let mut feed = Feed::new(7);
        for at in 1..=3 {
            feed.publish(&change(at)).unwrap();
        }
        let (missed, _) = feed.follow(Some("00000007-1"));
        let missed = missed.unwrap();
        assert_eq!(missed.len(), 2);
        assert!(missed[0].starts_with(b"id: 00000007-2\nevent: change\ndata: {\"at\":2}"));
        assert_eq!(feed.follow(Some(&feed.id())).0, Some(Vec::new()));
    }

    #[test]
    fn a_client_with_an_unknown_id_starts_over() {
        let mut feed = Feed::new(7);
        feed.publish(&change(1)).unwrap();
        for last in [
            None,
            Some("00000008-1"),
            Some("00000007-2"),
            Some("x"),
            Some("00000007-"),
        ] {
            assert_eq!(feed.follow(last).0, None, "{last:?}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut feed = Feed::new(7);
        let mut large = change(1);
        large.gone = Some(crate::view::Gone {
            provers: vec!["x".repeat(1 << 20)],
            blocks: Vec::new(),
        });
        for _ in 0..20 {
            feed.publish(&large).unwrap();
        }
        assert!(feed.bytes <= KEPT_BYTES && feed.kept.len() < 8);
        assert_eq!(feed.follow(Some("00000007-1")).0, None);
    }
}
