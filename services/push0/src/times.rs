//! Times for people: local time of the operator's machine, with ages.

use crate::table;
use jiff::tz::TimeZone;
use push0_domain::Timestamp;

/// Returns a time as `14:03:11`, or with its date if it was on another day than `now`, in local time.
pub(crate) fn local(at: Timestamp, now: Timestamp) -> String {
    text(at, now, &TimeZone::system())
}

/// Returns a time and its age: `14:03:11 (5 min ago)`.
pub(crate) fn with_age(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({} ago)", local(at, now), table::span(now.since(at)))
}

fn text(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let zoned = |at: Timestamp| {
        let micros = i64::try_from(at.0).ok()?;
        Some(
            jiff::Timestamp::from_microsecond(micros)
                .ok()?
                .to_zoned_datetime(zone.clone()),
        )
    };
    // A time that no calendar has is a claim of a broken clock.
    let (Some(at), Some(now)) = (zoned(at), zoned(now)) else {
        return "an impossible time".to_owned();
    };
    let format = if at.date() == now.date() {
        "%H:%M:%S"
    } else {
        "%Y-%m-%d %H:%M:%S"
    };
    at.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_time_of_today_has_no_date() {
        let noon = Timestamp(1_800_014_400_000_000);
        let zone = TimeZone::UTC;
        assert_eq!(text(noon, noon, &zone), "12:00:00");
        let yesterday = noon.minus(Duration::from_secs(24 * 3600));
        assert_eq!(text(yesterday, noon, &zone), "2027-01-14 12:00:00");
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(text(noon, noon, &east), "14:00:00");
        assert_eq!(text(Timestamp(u64::MAX), noon, &zone), "an impossible time");
    }
}
