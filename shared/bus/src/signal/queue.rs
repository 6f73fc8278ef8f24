//! The queue of a listener: bounded in number and in bytes, in all, for each participant that sends, and for all
//! participants together. Pure.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

/// How much may wait for a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Most messages. One takes about a kilobyte beside its bytes.
    pub messages: usize,
    /// Most bytes of messages.
    pub bytes: usize,
}

impl Default for Unread {
    fn default() -> Self {
        Self {
            messages: 16 * 1024,
            bytes: 16 << 20,
        }
    }
}

/// The part of both that the messages of one participant may take up: one half.
const SHARE: Part = Part(1, 2);
/// The part of both that the messages of all participants may take up. A machine may enrol under many names, and the
/// messages of services must have room beside them.
const PARTICIPANTS: Part = Part(3, 4);
const WHOLE: Part = Part(1, 1);

/// A fraction.
#[derive(Clone, Copy)]
struct Part(usize, usize);

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Too much of its sender waits.
    Share,
    /// Too much of all participants waits.
    Participants,
    /// Too much waits in all, and the message is one of a service.
    All,
}

/// Messages, with their number and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    messages: usize,
    bytes: usize,
}

impl Load {
    fn with(self, bytes: usize) -> Self {
        Self {
            messages: self.messages + 1,
            bytes: self.bytes + bytes,
        }
    }

    fn without(self, bytes: usize) -> Self {
        Self {
            messages: self.messages.saturating_sub(1),
            bytes: self.bytes.saturating_sub(bytes),
        }
    }

    /// Returns whether this is no more than a part of the queue's limit.
    fn fits(self, most: Unread, Part(count, of): Part) -> bool {
        self.messages <= most.messages / of * count && self.bytes <= most.bytes / of * count
    }
}

/// The messages that wait, oldest first.
#[derive(Debug)]
pub(super) struct Queue<T> {
    most: Unread,
    waiting: VecDeque<(T, Option<u64>, usize)>,
    all: Load,
    of_participants: Load,
    of_senders: HashMap<u64, Load>,
}

impl<T> Queue<T> {
    pub(super) fn new(most: Unread) -> Self {
        Self {
            most,
            waiting: VecDeque::new(),
            all: Load::default(),
            of_participants: Load::default(),
            of_senders: HashMap::new(),
        }
    }

    /// Adds a message of a participant, or of a service with `None`, unless too much waits.
    pub(super) fn push(&mut self, message: T, sender: Option<u64>, bytes: usize) -> Result<(), Full> {
        let all = self.all.with(bytes);
        if let Some(sender) = sender {
            let of_sender = self.of_senders.get(&sender).copied().unwrap_or_default();
            let (of_sender, of_participants) = (of_sender.with(bytes), self.of_participants.with(bytes));
            if !of_sender.fits(self.most, SHARE) {
                return Err(Full::Share);
            }
            if !of_participants.fits(self.most, PARTICIPANTS) || !all.fits(self.most, WHOLE) {
                return Err(Full::Participants);
            }
            self.of_senders.insert(sender, of_sender);
            self.of_participants = of_participants;
        } else if !all.fits(self.most, WHOLE) {
            return Err(Full::All);
        }
        self.all = all;
        self.waiting.push_back((message, sender, bytes));
        Ok(())
    }

    /// Takes the oldest message.
    pub(super) fn pop(&mut self) -> Option<T> {
        let (message, sender, bytes) = self.waiting.pop_front()?;
        self.all = self.all.without(bytes);
        if sender.is_some() {
            self.of_participants = self.of_participants.without(bytes);
        }
        if let Some(sender) = sender
            && let Entry::Occupied(mut of_sender) = self.of_senders.entry(sender)
        {
            let left = of_sender.get().without(bytes);
            if left.messages == 0 {
                of_sender.remove();
            } else {
                of_sender.insert(left);
            }
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(queue: &mut Queue<u64>, sender: u64, bytes: usize) -> (usize, Option<Full>) {
        let mut full = None;
        let pushed = std::iter::repeat_with(|| queue.push(sender, Some(sender), bytes));
        let pushed = pushed.take_while(|pushed| {
            full = pushed.err();
            full.is_none()
        });
        (pushed.count(), full)
    }

    #[test]
    fn one_participant_leaves_room_for_others_and_all_of_them_for_services() {
        let unread = Unread::default();
        for (bytes, most) in [(0, unread.messages), (1 << 20, 16), (unread.bytes / 4, 4)] {
            let mut queue = Queue::new(unread);
            assert_eq!(fill(&mut queue, 1, bytes), (most / 2, Some(Full::Share)));
            assert_eq!(fill(&mut queue, 2, bytes), (most / 4, Some(Full::Participants)));
            assert_eq!(queue.push(3, Some(3), bytes), Err(Full::Participants));
            for _ in 0..most / 4 {
                assert_eq!(queue.push(4, None, bytes), Ok(()));
            }
            assert_eq!(queue.push(4, None, bytes), Err(Full::All));
            let popped: Vec<u64> = std::iter::from_fn(|| queue.pop()).collect();
            assert_eq!(
                (popped.len(), popped.first(), popped.last()),
                (most, Some(&1), Some(&4))
            );
            assert_eq!(
                (queue.all, queue.of_participants, queue.of_senders.len()),
                (Load::default(), Load::default(), 0)
            );
            // A service has no share, and room taken by services is room lacked by participants.
            assert!((0..most).all(|_| queue.push(5, None, bytes).is_ok()));
            assert_eq!(queue.push(6, Some(6), bytes), Err(Full::Participants));
        }
    }
}
