//! A broker's wall clock as its clients see it, moved by whole seconds.
//!
//! Clients learn the time of a message from three places in the broker's bytes, and each has a fixed length: the
//! reply subject of a delivery (nanoseconds since 1970), the header `Nats-Time-Stamp`, and the field `time` of an answer in
//! JSON. So a wire can move the clock by rewriting the bytes in their place.

use std::{ops::Range, time::Duration};

/// The start of a delivery's reply subject. One of its tokens is the time, with this many digits.
const REPLY: &[u8] = b"$JS.ACK.";
const NANO_DIGITS: usize = 19;
/// The text before a time in RFC 3339.
const STAMPS: [&[u8]; 2] = [b"Nats-Time-Stamp: ", b"\"time\":\""];
/// The part of such a time that whole seconds change: `2026-11-30T12:00:00`.
const STAMP_LEN: usize = 19;

/// Moves the times that one connection receives. While the clock is moved, bytes wait until the end of their line.
#[derive(Debug, Default)]
pub(crate) struct MovedClock {
    unfinished: Vec<u8>,
}

impl MovedClock {
    /// Takes received bytes and returns those that need not wait, with times moved by so many seconds.
    pub(crate) fn pass(&mut self, bytes: &[u8], by_seconds: i64) -> Vec<u8> {
        self.unfinished.extend_from_slice(bytes);
        if by_seconds == 0 {
            return std::mem::take(&mut self.unfinished);
        }
        let end = self.unfinished.iter().rposition(|byte| *byte == b'\n');
        let rest = self.unfinished.split_off(end.map_or(0, |at| at + 1));
        let mut passed = std::mem::replace(&mut self.unfinished, rest);
        for at in replies(&passed) {
            move_nanos(&mut passed[at], by_seconds);
        }
        for at in stamps(&passed) {
            move_stamp(&mut passed[at], by_seconds);
        }
        passed
    }
}

fn positions<'a>(bytes: &'a [u8], what: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let starts = bytes.windows(what.len()).enumerate();
    starts.filter_map(move |(at, window)| (window == what).then_some(at + what.len()))
}

/// Returns the places of the times in reply subjects.
fn replies(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for start in positions(bytes, REPLY) {
        let subject = bytes[start..].split(|byte| b" \r".contains(byte)).next();
        let mut at = start;
        for token in subject.unwrap_or_default().split(|byte| *byte == b'.') {
            if token.len() == NANO_DIGITS && token.iter().all(u8::is_ascii_digit) {
                found.push(at..at + NANO_DIGITS);
            }
            at += token.len() + 1;
        }
    }
    found
}

/// Returns the places of the times in RFC 3339.
fn stamps(bytes: &[u8]) -> Vec<Range<usize>> {
    let starts = STAMPS.iter().flat_map(|before| positions(bytes, before));
    let places = starts.map(|start| start..start + STAMP_LEN);
    places.filter(|place| place.end <= bytes.len()).collect()
}

fn move_nanos(digits: &mut [u8], by_seconds: i64) {
    let text = std::str::from_utf8(digits).ok();
    if let Some(nanos) = text.and_then(|text| text.parse::<i64>().ok()) {
        let moved = nanos.saturating_add(by_seconds.saturating_mul(1_000_000_000));
        let moved = format!("{moved:019}");
        digits.copy_from_slice(&moved.as_bytes()[..NANO_DIGITS]);
    }
}

fn move_stamp(stamp: &mut [u8], by_seconds: i64) {
    let text = std::str::from_utf8(stamp).ok();
    if let Some(time) = text.and_then(|text| humantime::parse_rfc3339(&format!("{text}Z")).ok()) {
        let by = Duration::from_secs(by_seconds.unsigned_abs());
        let moved = if by_seconds < 0 { time - by } else { time + by };
        let moved = humantime::format_rfc3339_seconds(moved).to_string();
        stamp.copy_from_slice(&moved.as_bytes()[..STAMP_LEN]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(text: &str, by_seconds: i64) -> String {
        let passed = MovedClock::default().pass(text.as_bytes(), by_seconds);
        String::from_utf8(passed).expect("text stays text")
    }

    #[test]
    fn the_time_of_a_delivery_moves_and_its_other_numbers_stay() {
        let line = |nanos: &str| format!("MSG a.b 7 $JS.ACK.S.C.1.22.33.{nanos}.0 2\r\nhi\r\n");
        let (before, after) = ("1764500000123456789", "1764500060123456789");
        assert_eq!(moved(&line(before), 60), line(after));
        assert_eq!(moved(&line(before), 0), line(before));
        assert_eq!(moved("no end of a line", 0), "no end of a line");
    }

    #[test]
    fn times_in_headers_and_answers_move_over_midnight() {
        let text = |day: &str| format!("Nats-Time-Stamp: {day}.5Z\r\n{{\"time\":\"{day}.123456789Z\"}}\r\n");
        assert_eq!(
            moved(&text("2026-11-30T23:59:30"), 60),
            text("2026-12-01T00:00:30")
        );
        assert_eq!(
            moved(&text("2026-12-01T00:00:30"), -60),
            text("2026-11-30T23:59:30")
        );
    }

    #[test]
    fn a_time_that_arrives_in_two_parts_moves_as_one() {
        let mut clock = MovedClock::default();
        assert_eq!(clock.pass(b"PING\r\nNats-Time-Stamp: 2026-11-", 60), b"PING\r\n");
        let rest = clock.pass(b"30T00:00:00Z\r\n", 60);
        assert_eq!(rest, b"Nats-Time-Stamp: 2026-11-30T00:01:00Z\r\n");
    }
}
