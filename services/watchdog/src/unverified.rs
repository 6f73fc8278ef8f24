//! Checks that no verifier could give a verdict on, as verifiers report them.
//!
//! Such a check waits in CHECKS without a limit. A waiting check is in no lease, by intention, so the check must
//! not be taken for a lost delivery. A verdict ends the entry, and so does a look that does not find the check.
//!
//! The fault may be the verifiers' or the proof's: a prover can make outputs on which every verifier fails, and would
//! hold its block up for ever. Verdicts on other proofs of the stage meanwhile tell the two apart. Such a check is
//! doubted: its task is proved once more elsewhere, and the check waits on, since its proof may still be valid.

use push0_domain::{
    Participant, PipelineId, ProofType, StageName, Timestamp, ZkvmId,
    message::{BlockEnded, Happening, Obstacle},
    subject::{AttemptKey, Kind, Report},
};
use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::Duration,
};

/// Most checks kept in memory. A verifier that is away stops the dispatcher long before.
const CHECKS_MAX: usize = 20_000;
/// How long after its pause a check may be in no lease: the way to a verifier, and its next heartbeat.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);
/// How often unwanted checks are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Most checks that one sweep reads.
const SWEEP_MAX: usize = 256;
/// The delivery from which on a check may be doubted. All pauses before take at least 12 s.
const DOUBTED_FROM: u32 = 11;
/// How many verdicts on other proofs of the stage make a check doubtful.
const VERDICTS_MIN: u64 = 3;
/// For how many deliveries a check must go on after these verdicts: two tries, each with its pause. Tries that failed
/// while the verifiers could judge nothing say nothing about the proof, however many they are.
const DELIVERIES_AFTER_MIN: u32 = 4;
/// Most checks that are doubted in one look.
const DOUBTS_AT_ONCE: usize = 16;
/// Most ends of blocks kept in memory. After more of them, an operator's second cancellation removes the check.
const ENDS_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    deliveries: u32,
    obstacle: Obstacle,
    again_at: Timestamp,
    /// The number of verdicts on proofs of the stage when the check was first heard of.
    verdicts_before: u64,
    /// The last delivery that was heard of before these verdicts, once there were enough of them.
    judged_at: Option<u32>,
    is_doubted: bool,
}

impl Waiting {
    /// Returns whether the verifiers failed on this proof again and again, while they judged others.
    fn is_doubtful(&self) -> bool {
        let may_be_the_proof = matches!(
            self.obstacle,
            Obstacle::Verifier | Obstacle::Timeout | Obstacle::Killed
        );
        may_be_the_proof
            && !self.is_doubted
            && self.deliveries >= DOUBTED_FROM
            && self
                .judged_at
                .is_some_and(|at| self.deliveries.saturating_sub(at) >= DELIVERIES_AFTER_MIN)
    }
}

/// A stage, whose proofs the same verifiers judge.
type Judged = (PipelineId, ProofType, StageName);

fn judged(key: &AttemptKey) -> Judged {
    (key.pipeline.clone(), key.proof_type.clone(), key.stage.clone())
}

/// Checks without a verdict.
#[derive(Debug, Default)]
pub struct Unverified {
    checks: BTreeMap<AttemptKey, Waiting>,
    /// The number of verdicts heard of each stage.
    verdicts: BTreeMap<Judged, u64>,
    /// The latest ends of blocks. The record of a cancelled block without results does not tell which
    /// announcements of the block it is about, but the end does.
    ends: VecDeque<BlockEnded>,
    swept_at: Timestamp,
    /// The check after which the next sweep begins.
    swept_to: Option<AttemptKey>,
}

impl Unverified {
    /// Handles a verifier's event. Other events are ignored, and so are those about another zkVM than the verifier's.
    pub fn heard(&mut self, verifier: &Participant, what: &Happening) {
        let (check, deliveries, obstacle, again_at) = match what {
            Happening::CheckUnverified {
                check,
                deliveries,
                obstacle,
                again_at,
                ..
            } => (check, *deliveries, Some(*obstacle), *again_at),
            Happening::CheckPaused {
                check,
                deliveries,
                again_at,
                ..
            } => (check, *deliveries, None, *again_at),
            _ => return,
        };
        let Ok(key) = Report::parse(check, Kind::Check).map(|report| report.attempt) else {
            return;
        };
        if key.zkvm != verifier.zkvm {
            return;
        }
        let known = self.checks.get(&key);
        if known.is_none() && self.checks.len() >= CHECKS_MAX {
            return;
        }
        // A pause right after a report belongs to that report. Otherwise the verifier before said nothing.
        let said = known.filter(|known| deliveries <= known.deliveries.saturating_add(1));
        let obstacle = obstacle
            .or(said.map(|said| said.obstacle))
            .unwrap_or(Obstacle::Killed);
        let verdicts = self.verdicts.get(&judged(&key)).copied().unwrap_or_default();
        let verdicts_before = known.map_or(verdicts, |known| known.verdicts_before);
        let judged_at = known.and_then(|known| {
            let has_enough = verdicts.saturating_sub(verdicts_before) >= VERDICTS_MIN;
            known.judged_at.or(has_enough.then_some(known.deliveries))
        });
        let waiting = Waiting {
            deliveries,
            obstacle,
            again_at,
            verdicts_before,
            judged_at,
            is_doubted: known.is_some_and(|known| known.is_doubted),
        };
        self.checks.insert(key, waiting);
    }

    /// Handles a verdict.
    pub fn verdict(&mut self, key: &AttemptKey) {
        self.settled(key);
        let count = self.verdicts.entry(judged(key)).or_default();
        *count = count.saturating_add(1);
    }

    /// Returns checks that became doubtful, each once. `present` are the attempts in CHECKS: a task with a later attempt
    /// there was proved once more already.
    pub fn doubtful(&mut self, present: &[AttemptKey]) -> Vec<AttemptKey> {
        let doubtful = self
            .checks
            .iter_mut()
            .filter(|(_, waiting)| waiting.is_doubtful());
        let mut found = Vec::new();
        for (key, waiting) in doubtful.take(DOUBTS_AT_ONCE) {
            waiting.is_doubted = true;
            let is_later = |other: &AttemptKey| {
                other.attempt > key.attempt
                    && AttemptKey {
                        attempt: key.attempt,
                        ..other.clone()
                    } == *key
            };
            if !present.iter().any(is_later) {
                found.push(key.clone());
            }
        }
        found
    }

    /// Returns whether the task of a check is to be proved once more, because verifiers fail on this proof alone. Such a check
    /// may never get its verdict.
    pub fn is_doubted(&self, key: &AttemptKey) -> bool {
        self.checks.get(key).is_some_and(|waiting| waiting.is_doubted)
    }

    /// Handles the end of blocks no longer wanted.
    pub fn ended(&mut self, ended: BlockEnded) {
        if self.ends.len() == ENDS_MAX {
            self.ends.pop_front();
        }
        self.ends.push_back(ended);
    }

    /// Returns the latest ends of a pipeline's blocks.
    pub fn ends_of(&self, pipeline: &PipelineId) -> impl Iterator<Item = &BlockEnded> {
        self.ends.iter().filter(move |ended| ended.pipeline == *pipeline)
    }

    /// Forgets a check that is gone.
    pub fn settled(&mut self, key: &AttemptKey) {
        self.checks.remove(key);
    }

    /// Forgets the checks that are not in CHECKS any more.
    pub fn present(&mut self, keys: &HashSet<AttemptKey>) {
        self.checks.retain(|key, _| keys.contains(key));
    }

    /// Returns whether a check is in no lease because it waits for its next try.
    pub fn rests(&self, key: &AttemptKey, now: Timestamp) -> bool {
        let waiting = self.checks.get(key);
        waiting.is_some_and(|waiting| now < waiting.again_at.plus(TAKEN_WITHIN))
    }

    /// Returns the number of checks by zkVM and obstacle.
    pub fn counts(&self) -> BTreeMap<(&ZkvmId, Obstacle), i64> {
        let mut counts = BTreeMap::new();
        for (key, waiting) in &self.checks {
            *counts.entry((&key.zkvm, waiting.obstacle)).or_default() += 1;
        }
        counts
    }

    /// Returns checks to compare with the output of their pipelines, if a sweep is due.
    pub fn to_sweep(&mut self, now: Timestamp) -> Vec<AttemptKey> {
        if now.since(self.swept_at) < SWEEP_EVERY {
            return Vec::new();
        }
        self.swept_at = now;
        let begin = self.swept_to.take();
        let behind = |key: &&AttemptKey| begin.as_ref().is_none_or(|begin| *key > begin);
        let found: Vec<AttemptKey> = self
            .checks
            .keys()
            .filter(behind)
            .take(SWEEP_MAX)
            .cloned()
            .collect();
        self.swept_to = found.last().filter(|_| found.len() == SWEEP_MAX).cloned();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::subject;
    use std::ops::RangeInclusive;

    fn key_of(index: u32) -> AttemptKey {
        AttemptKey {
            zkvm: "mock".parse().unwrap(),
            pipeline: "demo".parse().unwrap(),
            block: "7-3f3f3f3f".parse().unwrap(),
            proof_type: "main".parse().unwrap(),
            stage: "prove".parse().unwrap(),
            index,
            attempt: 1,
        }
    }

    fn verifier() -> Participant {
        Participant {
            zkvm: "mock".parse().unwrap(),
            name: "v".parse().unwrap(),
        }
    }

    fn key() -> AttemptKey {
        key_of(0)
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp(ms * 1000)
    }

    fn untold(deliveries: u32, obstacle: Obstacle, again_at: Timestamp) -> Happening {
        Happening::CheckUnverified {
            check: subject::check(&"p".parse().unwrap(), &key(), None),
            prover: "p".parse().unwrap(),
            verifier: "v".parse().unwrap(),
            zkvm: "mock".parse().unwrap(),
            deliveries,
            obstacle,
            reason: "no key".into(),
            again_at,
        }
    }

    fn paused(deliveries: u32, again_at: Timestamp) -> Happening {
        Happening::CheckPaused {
            check: subject::check(&"p".parse().unwrap(), &key(), None),
            prover: "p".parse().unwrap(),
            verifier: "v".parse().unwrap(),
            zkvm: "mock".parse().unwrap(),
            deliveries,
            again_at,
        }
    }

    fn obstacle(unverified: &Unverified) -> Vec<Obstacle> {
        unverified
            .counts()
            .into_keys()
            .map(|(_, obstacle)| obstacle)
            .collect()
    }

    #[test]
    fn a_check_rests_until_a_moment_after_its_pause() {
        let mut unverified = Unverified::default();
        assert!(!unverified.rests(&key(), at(0)));
        unverified.heard(&verifier(), &untold(6, Obstacle::Verifier, at(30_000)));
        assert!(unverified.rests(&key(), at(30_999)));
        assert!(!unverified.rests(&key(), at(31_000)));
        unverified.settled(&key());
        assert!(!unverified.rests(&key(), at(0)) && unverified.counts().is_empty());
    }

    #[test]
    fn a_pause_keeps_the_obstacle_of_the_try_before_and_tells_of_one_that_said_nothing() {
        let mut unverified = Unverified::default();
        unverified.heard(&verifier(), &untold(5, Obstacle::Store, at(0)));
        unverified.heard(&verifier(), &paused(6, at(3_000)));
        assert_eq!(obstacle(&unverified), [Obstacle::Store]);
        assert!(unverified.rests(&key(), at(3_500)));
        // The seventh delivery ended without a word.
        unverified.heard(&verifier(), &paused(8, at(9_000)));
        assert_eq!(obstacle(&unverified), [Obstacle::Killed]);
    }

    #[test]
    fn a_check_is_doubted_once_if_verifiers_judge_other_proofs_of_its_stage_meanwhile() {
        let of_block = |number: u64| AttemptKey {
            block: format!("{number}-3f3f3f3f").parse().unwrap(),
            ..key()
        };
        let mut unverified = Unverified::default();
        (1..=9).for_each(|number| unverified.verdict(&of_block(number)));
        let tries = |unverified: &mut Unverified, deliveries: RangeInclusive<u32>, obstacle: Obstacle| {
            deliveries.for_each(|count| {
                unverified.heard(&verifier(), &untold(count, obstacle, at(0)));
            });
        };
        tries(&mut unverified, 1..=100, Obstacle::Verifier);
        assert!(
            unverified.doubtful(&[key()]).is_empty(),
            "the verifiers judged nothing since"
        );
        (10..=12).for_each(|number| unverified.verdict(&of_block(number)));
        tries(&mut unverified, 101..=103, Obstacle::Verifier);
        assert!(
            unverified.doubtful(&[key()]).is_empty(),
            "the verifiers are just back, and have hardly tried it since"
        );
        tries(&mut unverified, 104..=104, Obstacle::Verifier);
        assert!(!unverified.is_doubted(&key()));
        assert_eq!(unverified.doubtful(&[key()]), [key()]);
        assert!(unverified.is_doubted(&key()));
        tries(&mut unverified, 105..=200, Obstacle::Verifier);
        assert!(unverified.doubtful(&[key()]).is_empty(), "it is doubted once");

        let mut unverified = Unverified::default();
        tries(&mut unverified, 1..=1, Obstacle::Killed);
        (1..=9).for_each(|number| unverified.verdict(&of_block(number)));
        tries(&mut unverified, 2..=DOUBTED_FROM - 1, Obstacle::Killed);
        assert!(unverified.doubtful(&[key()]).is_empty(), "too few tries");
        tries(&mut unverified, DOUBTED_FROM..=100, Obstacle::Store);
        assert!(unverified.doubtful(&[key()]).is_empty(), "the store is away");
        tries(&mut unverified, 101..=101, Obstacle::Timeout);
        let later = AttemptKey { attempt: 2, ..key() };
        assert!(
            unverified.doubtful(&[key(), later]).is_empty(),
            "it was proved once more"
        );
    }

    #[test]
    fn a_check_that_left_its_stream_is_forgotten() {
        let mut unverified = Unverified::default();
        unverified.heard(&verifier(), &untold(1, Obstacle::Facts, at(0)));
        unverified.present(&HashSet::from([key()]));
        assert_eq!(unverified.counts().values().sum::<i64>(), 1);
        unverified.present(&HashSet::new());
        assert!(unverified.counts().is_empty());
    }

    #[test]
    fn sweeps_have_a_distance_and_reach_every_check() {
        let mut unverified = Unverified::default();
        for index in 0..=u32::try_from(SWEEP_MAX).unwrap() {
            let what = Happening::CheckPaused {
                check: subject::check(&"p".parse().unwrap(), &key_of(index), None),
                prover: "p".parse().unwrap(),
                verifier: "v".parse().unwrap(),
                zkvm: "mock".parse().unwrap(),
                deliveries: 6,
                again_at: at(0),
            };
            unverified.heard(&verifier(), &what);
        }
        let first = unverified.to_sweep(at(20_000));
        assert_eq!(first.len(), SWEEP_MAX);
        assert!(unverified.to_sweep(at(29_000)).is_empty());
        let second = unverified.to_sweep(at(31_000));
        assert_eq!(second.len(), 1);
        assert!(!first.contains(&second[0]));
        assert_eq!(unverified.to_sweep(at(42_000)).len(), SWEEP_MAX);
    }
}
