//! Critical paths and accounts: the parts of a time are never more than the time, with any message.

use crate::strategy;
use proptest::{collection::vec, prelude::*};
use push0_domain::{
    CriticalPath, StageName, Timestamp,
    message::{Emission, EmissionOutcome, TaskResult, Verdict},
    path::{Leg, Parts},
};

fn name(name: &str) -> StageName {
    name.parse().expect("a name")
}

fn time_us(leg: &Leg) -> u64 {
    leg.ended_at.0.saturating_sub(leg.ready_at.0)
}

/// Returns a result that says this of its path and its times.
fn result(model: &TaskResult, stage: &str, path: CriticalPath, prove_us: u64) -> TaskResult {
    let mut result = TaskResult {
        prove_us,
        transfer_us: 0,
        waited_us: 0,
        verdict: None,
        ..model.clone()
    };
    result.header.id.stage.stage = name(stage);
    result.header.path = path;
    result
}

/// Returns a record of these proofs' paths.
fn record(model: Emission, paths: Vec<Vec<Leg>>, order_us: u64) -> Emission {
    let proofs = match &model.outcome {
        EmissionOutcome::Proved(proofs) => proofs.clone(),
        _ => Vec::new(),
    };
    let proof = proofs.first().expect("a proof").clone();
    let proofs = paths.into_iter().map(|path| push0_domain::message::Proof {
        path,
        ..proof.clone()
    });
    Emission {
        outcome: EmissionOutcome::Proved(proofs.collect()),
        order_us,
        ..model
    }
}

fn proved() -> impl Strategy<Value = Emission> {
    strategy::emission().prop_filter(
        "a proof",
        |emission| matches!(&emission.outcome, EmissionOutcome::Proved(proofs) if !proofs.is_empty()),
    )
}

proptest! {
    #[test]
    fn all_parts_of_an_account_together_are_its_total(
        emission in strategy::emission(),
        stored_at in any::<u64>(),
    ) {
        let account = emission.account(Timestamp(stored_at));
        prop_assert_eq!(account.is_some(), !emission.critical_path().is_empty());
        let Some(account) = account else { return Ok(()) };
        let all = [account.parts.sum_us(), account.range_us, account.order_us, account.own_us];
        let sum: u128 = all.iter().map(|part| u128::from(*part)).sum();
        prop_assert_eq!(sum, u128::from(account.total_us));
        let began = emission.critical_path()[0].ready_at;
        prop_assert_eq!(account.total_us, stored_at.saturating_sub(began.0));
        let _ = emission.busy_us();
    }

    #[test]
    fn a_leg_is_never_longer_than_its_time_whatever_a_result_says(
        result in strategy::task_result(),
        ended_at in any::<u64>(),
    ) {
        let before = &result.header.path.legs;
        let legs = result.legs(Timestamp(ended_at));
        let last = legs.last().unwrap();
        prop_assert_eq!(last.ended_at, Timestamp(ended_at));
        prop_assert_eq!(&last.stage, &result.header.id.stage.stage);
        prop_assert!(last.parts.sum_us() <= time_us(last), "{:?}", last);
        prop_assert_eq!(last.own_us(), time_us(last) - last.parts.sum_us());
        let kept = before.len() + 1 - usize::from(before.last().is_some_and(|leg| leg.stage == last.stage));
        prop_assert_eq!(legs.len(), kept);
        prop_assert_eq!(&legs[..kept - 1], &before[..kept - 1]);
    }

    #[test]
    fn levels_of_one_stage_are_one_leg_and_stages_are_one_each(
        model in strategy::task_result(),
        stages in vec((0..3_u8, 1..1_000_u64, 0..1_000_u64), 1..20),
    ) {
        // Each result proves for a while, after a while that is push0's own.
        let mut path = CriticalPath::behind(Vec::new(), Timestamp(7));
        let (mut at, mut proved, mut own) = (7, 0, 0);
        let mut names: Vec<&str> = Vec::new();
        let mut legs = Vec::new();
        for (stage, proves, waits) in stages {
            let stage = ["a", "b", "c"][usize::from(stage)];
            if names.last() != Some(&stage) {
                names.push(stage);
            }
            (at, proved, own) = (at + proves + waits, proved + proves, own + waits);
            legs = result(&model, stage, path, proves).legs(Timestamp(at));
            path = CriticalPath::behind(legs.clone(), Timestamp(at));
        }
        let told: Vec<&str> = legs.iter().map(|leg| leg.stage.as_str()).collect();
        prop_assert_eq!(told, names);
        prop_assert_eq!(legs.iter().map(|leg| leg.parts.prove_us).sum::<u64>(), proved);
        prop_assert_eq!(legs.iter().map(Leg::own_us).sum::<u64>(), own);
    }

    #[test]
    fn failures_add_up_and_the_newest_ends_last(
        path in strategy::critical_path(),
        ends in vec(any::<u64>(), 0..5),
        held_us in any::<u64>(),
    ) {
        let path = CriticalPath { failed: path.failed / 2, ..path };
        let mut last = path.clone().held(held_us);
        prop_assert_eq!(&last, &CriticalPath { held_us, ..path.clone() });
        for end in &ends {
            last = last.failed_at(Timestamp(*end)).held(held_us);
        }
        let until = ends.iter().copied().max().unwrap_or(0).max(path.failed_until.0);
        let failed = path.failed + u32::try_from(ends.len()).unwrap();
        prop_assert_eq!(&last, &CriticalPath { failed, failed_until: Timestamp(until), held_us, ..path.clone() });
        // A copy and a retry are no failures, and wait anew.
        let asked = last.asked_at(Timestamp(u64::MAX));
        prop_assert_eq!(asked, CriticalPath { failed, failed_until: Timestamp(u64::MAX), held_us: 0, ..path });
    }

    #[test]
    fn the_parts_of_a_record_are_told_as_they_were(
        model in strategy::task_result(),
        emission in proved(),
        [failed, held, slot, transfer, prove, waited, verify, own, range, order, record_own] in
            proptest::array::uniform11(0..1_000_000_u64),
    ) {
        let failed_until = Timestamp(1_000 + failed);
        let path = CriticalPath::behind(Vec::new(), Timestamp(1_000)).failed_at(failed_until).held(held);
        let first = TaskResult {
            waited_us: slot,
            transfer_us: transfer,
            verdict: Some(Verdict {
                verifier: "v1".parse().unwrap(),
                verify_us: verify,
                waited_us: waited,
                invalid: None,
            }),
            ..result(&model, "prove", path, prove)
        };
        let first_end = Timestamp(1_000 + failed + held + slot + transfer + prove + waited + verify + own);
        let legs = first.legs(first_end);
        prop_assert_eq!(legs[0].own_us(), own);
        prop_assert_eq!(legs[0].failed, 1);
        let closed = Timestamp(first_end.0 + range);
        let ended = Timestamp(closed.0 + 5);
        let of_range = result(&model, "range", CriticalPath::behind(legs, closed), 5).legs(ended);
        let short = of_range[..1].to_vec();
        // Of several proofs, the one that was done last tells.
        let emission = record(emission, vec![of_range, short, Vec::new()], order);
        let account = emission.account(Timestamp(ended.0 + order + record_own)).unwrap();
        let parts = Parts {
            failed_us: failed,
            waited_us: held + slot,
            transfer_us: transfer,
            prove_us: prove + 5,
            check_waited_us: waited,
            verify_us: verify,
        };
        prop_assert_eq!(account.parts, parts);
        prop_assert_eq!((account.range_us, account.order_us, account.own_us), (range, order, own + record_own));
        prop_assert_eq!(emission.busy_us(), prove + 5 + verify);
    }

    #[test]
    fn a_record_without_a_proof_has_no_account(emission in strategy::emission(), at in any::<u64>()) {
        let record = Emission { outcome: EmissionOutcome::Proved(Vec::new()), ..emission };
        prop_assert_eq!((record.account(Timestamp(at)), record.busy_us()), (None, 0));
    }
}
