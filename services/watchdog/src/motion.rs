//! Decides which checks say that a proof moves.
//!
//! A prover may store each of its sealed checks again and again, also one that has its verdict. So a check alone does not say
//! that the proof is worked on. Work moves from STAGES over TASKS to CHECKS, and its header says since when it is ready, which
//! the dispatcher's seal covers. If a look finds no ready stage and no task of a proof, any check of the proof that is stored
//! later is of work that was ready later, or repeats an earlier check.
//!
//! The instants are those of brokers and services. If clocks differ, a repeated check may count for as long, or a
//! fast proof may be begun anew.

use push0_domain::Timestamp;

/// The last look that saw a proof move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// When the look began.
    pub at: Timestamp,
    /// The newest message of CHECKS, read after the look.
    pub checks_to: u64,
}

/// The evidence of a sealed check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The proof has moved since it was last seen to move.
    Moves,
    /// The check was here already, and waits for its verdict.
    Waits,
    /// None: the check repeats an earlier one.
    Repeated,
}

/// Returns the evidence of the sealed check with this sequence, whose work is ready since `ready_at`. `moved` is `None` in the
/// first look at the proof.
pub fn evidence(moved: Option<&Moved>, sequence: u64, ready_at: Timestamp) -> Evidence {
    match moved {
        None => Evidence::Moves,
        Some(moved) if sequence <= moved.checks_to => Evidence::Waits,
        Some(moved) if ready_at > moved.at => Evidence::Moves,
        Some(_) => Evidence::Repeated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_repeats_an_earlier_one_says_nothing() {
        let moved = Moved {
            at: Timestamp(100),
            checks_to: 7,
        };
        for (moved, sequence, ready_at, expected) in [
            (None, 9, 50, Evidence::Moves),
            (Some(&moved), 7, 50, Evidence::Waits),
            (Some(&moved), 9, 101, Evidence::Moves),
            (Some(&moved), 9, 100, Evidence::Repeated),
        ] {
            let found = evidence(moved, sequence, Timestamp(ready_at));
            assert_eq!(found, expected, "{moved:?} {sequence} {ready_at}");
        }
    }
}
