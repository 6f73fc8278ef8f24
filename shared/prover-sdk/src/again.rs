//! Decides when a check without a verdict is tried again.
//!
//! The broker's count of deliveries is the only memory that outlives a verifier. So the pause must come also
//! if the proof kills each verifier, before that verifier can ask for a pause: from the fifth delivery on, every
//! other delivery is a pause and no try.

use crate::attempt::GIVEN_BACK_MAX;
use std::time::Duration;

/// The first pause, at most.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);
/// The last delivery after which the verifier itself asks for the pause. Up to here a check may come back
/// because it waited for a slot, or because its verifier died by chance, and must not wait for that.
const DIRECT_MAX: u32 = 4;
const _: () = assert!(GIVEN_BACK_MAX < DIRECT_MAX);
/// The delivery from which on a missing output counts as lost. All pauses before take at least 12 s.
const LOST_FROM: u32 = 11;

/// The use of one delivery of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The check is verified, and given back for so long if there is no verdict.
    Try(Duration),
    /// The check is given back for so long.
    Pause(Duration),
}

/// Returns the use of a delivery. `draw` is a random number from 0.5 to 1: verifiers that failed together
/// must not try again together.
pub(crate) fn turn(deliveries: u32, draw: f64) -> Turn {
    let pause = |doublings: u32| {
        FIRST
            .saturating_mul(2_u32.saturating_pow(doublings))
            .min(LONGEST)
            .mul_f64(draw)
    };
    match deliveries {
        0..=DIRECT_MAX => Turn::Try(pause(deliveries.saturating_sub(1))),
        _ if deliveries.is_multiple_of(2) => Turn::Pause(pause(deliveries / 2 + 1)),
        _ => Turn::Try(Duration::ZERO),
    }
}

/// Returns whether an output that the store does not have at this delivery will never come.
pub(crate) fn is_lost(deliveries: u32) -> bool {
    deliveries >= LOST_FROM
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the pauses before the tries, if no try comes to a verdict.
    fn pauses(deliveries: u32, is_killed: bool) -> Vec<u64> {
        let mut pauses = vec![0];
        for turn in (1..=deliveries).map(|delivery| turn(delivery, 1.0)) {
            let pause = match turn {
                Turn::Try(_) if is_killed => Duration::ZERO,
                Turn::Try(pause) | Turn::Pause(pause) => pause,
            };
            *pauses.last_mut().expect("one at least") += pause.as_millis() as u64;
            if matches!(turn, Turn::Try(_)) {
                pauses.push(0);
            }
        }
        pauses
    }

    #[test]
    fn pauses_grow_up_to_the_longest_and_never_end() {
        let pauses = pauses(1001, false);
        // The pause after a try is noted before the try is.
        assert_eq!(
            pauses[..13],
            [
                200, 400, 800, 1600, 0, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000, 30_000
            ]
        );
        assert!(pauses[9..pauses.len() - 1].iter().all(|pause| *pause == 30_000));
    }

    #[test]
    fn a_proof_that_kills_its_verifiers_meets_the_same_pauses_after_its_first_victims() {
        let pauses = pauses(1001, true);
        assert_eq!(pauses[..8], [0, 0, 0, 0, 0, 3200, 6400, 12_800]);
        assert!(pauses[9..pauses.len() - 1].iter().all(|pause| *pause == 30_000));
    }

    #[test]
    fn a_draw_shortens_a_pause_by_half_at_most() {
        assert_eq!(turn(1, 0.5), Turn::Try(Duration::from_millis(100)));
        assert_eq!(turn(u32::MAX - 1, 0.5), Turn::Pause(Duration::from_secs(15)));
    }

    #[test]
    fn an_output_counts_as_lost_only_after_many_seconds() {
        let waited: Duration = (1..LOST_FROM)
            .map(|delivery| match turn(delivery, 0.5) {
                Turn::Try(pause) | Turn::Pause(pause) => pause,
            })
            .sum();
        assert!(
            !is_lost(LOST_FROM - 1) && waited >= Duration::from_secs(12),
            "{waited:?}"
        );
    }
}
