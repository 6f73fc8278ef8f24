//! Where the time of a proved block went, in words.

use crate::table;
use push0_domain::{
    Timestamp,
    account::Account,
    message::Emission,
    path::{Leg, Parts},
};
use std::time::Duration;

/// Times below this many microseconds are not worth a word: they would be shown as zero.
const SHOWN_FROM_US: u64 = 50;

/// Returns the account of a record, one line for the whole and one for each stage; empty for a block without a proof.
pub(crate) fn lines(emission: &Emission, stored_at: Timestamp) -> Vec<String> {
    let Some(account) = emission.account(stored_at) else {
        return Vec::new();
    };
    let legs = emission.critical_path();
    let mut lines = vec![line("took", account.total_us, &whole(&account, legs))];
    lines.extend(legs.iter().map(stage));
    lines
}

fn line(name: &str, us: u64, parts: &[String]) -> String {
    format!("  {name:<12}  {}: {}", time(us), parts.join(", "))
}

fn whole(account: &Account, legs: &[Leg]) -> Vec<String> {
    let failed = legs.iter().map(|leg| leg.failed).fold(0, u32::saturating_add);
    let mut told = words(&account.parts, failed);
    told.extend(part(account.range_us, "for its range"));
    told.extend(part(account.order_us, "for earlier blocks"));
    told.push(format!("{} push0", time(account.own_us)));
    told
}

fn stage(leg: &Leg) -> String {
    let mut told = words(&leg.parts, leg.failed);
    told.push(format!("{} push0", time(leg.own_us())));
    let checked = leg.verifier.as_ref();
    let checked = checked.map_or_else(String::new, |verifier| format!(", checked by {verifier}"));
    let us = leg.ended_at.0.saturating_sub(leg.ready_at.0);
    let told = line(&format!("stage {}", leg.stage), us, &told);
    format!("{told}; by {}{checked}", leg.prover)
}

/// Returns the parts that took time.
fn words(parts: &Parts, failed: u32) -> Vec<String> {
    let attempts = match failed {
        0 => "before a copy or a retry was asked for".to_owned(),
        1 => "in 1 failed attempt".to_owned(),
        failed => format!("in {failed} failed attempts"),
    };
    let all = [
        part(parts.waited_us, "waiting for provers"),
        part(parts.failed_us, &attempts),
        part(parts.transfer_us, "of transfer"),
        part(parts.prove_us, "proving"),
        part(parts.check_waited_us, "waiting for a verifier"),
        part(parts.verify_us, "verifying"),
    ];
    all.into_iter().flatten().collect()
}

fn part(us: u64, words: &str) -> Option<String> {
    (us >= SHOWN_FROM_US).then(|| format!("{} {words}", time(us)))
}

/// Returns a time in one unit. Below 10 ms, where push0's own times are, it has a decimal.
fn time(us: u64) -> String {
    match us {
        0..10_000 => {
            let tenths = (us + 50) / 100;
            let ms = (tenths / 10).to_string();
            match tenths % 10 {
                0 => format!("{ms} ms"),
                tenth => format!("{ms}.{tenth} ms"),
            }
        }
        us => table::span(Duration::from_micros(us)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{proof, record};
    use push0_domain::message::{EmissionOutcome, EndReason, Proof};

    fn leg(stage: &str, (ready_at, ended_at): (u64, u64), failed: u32, parts: Parts) -> Leg {
        Leg {
            stage: stage.parse().unwrap(),
            ready_at: Timestamp(ready_at),
            ended_at: Timestamp(ended_at),
            prover: "miden-2".parse().unwrap(),
            verifier: (stage == "range").then(|| "v1".parse().unwrap()),
            failed,
            parts,
        }
    }

    fn told(path: Vec<Leg>, order_us: u64, stored_at: u64) -> Vec<String> {
        let proof = Proof {
            path,
            ..proof(Some("v1"))
        };
        let mut emission = record(7, EmissionOutcome::Proved(vec![proof])).emission;
        emission.order_us = order_us;
        lines(&emission, Timestamp(stored_at))
    }

    #[test]
    fn every_part_that_took_time_is_told() {
        let prove = Parts {
            failed_us: 400_000,
            waited_us: 2_300_000,
            transfer_us: 12_000,
            prove_us: 1_500_000,
            ..Parts::default()
        };
        let range = Parts {
            prove_us: 400_000,
            check_waited_us: 1_000,
            verify_us: 3_040,
            ..Parts::default()
        };
        let path = vec![
            leg("prove", (1_000_000, 5_214_000), 2, prove),
            leg("range", (5_814_000, 6_219_040), 0, range),
        ];
        assert_eq!(
            told(path, 200_000, 6_420_140),
            [
                "  took          5.4 s: 2.3 s waiting for provers, 400 ms in 2 failed attempts, 12 ms of transfer, \
                 1.9 s proving, 1 ms waiting for a verifier, 3 ms verifying, 600 ms for its range, \
                 200 ms for earlier blocks, 4.1 ms push0",
                "  stage prove   4.2 s: 2.3 s waiting for provers, 400 ms in 2 failed attempts, 12 ms of transfer, \
                 1.5 s proving, 2 ms push0; by miden-2",
                "  stage range   405 ms: 400 ms proving, 1 ms waiting for a verifier, 3 ms verifying, 1 ms push0; \
                 by miden-2, checked by v1",
            ]
        );
    }

    #[test]
    fn parts_that_took_no_time_are_left_out() {
        let quick = Parts {
            prove_us: 300_000,
            verify_us: 49,
            ..Parts::default()
        };
        assert_eq!(
            told(vec![leg("prove", (0, 301_500), 0, quick)], 0, 303_000),
            [
                "  took          303 ms: 300 ms proving, 3 ms push0",
                "  stage prove   301 ms: 300 ms proving, 1.5 ms push0; by miden-2",
            ]
        );
        let copied = Parts {
            failed_us: 5_000_000,
            prove_us: 300_000,
            ..Parts::default()
        };
        let hedged = told(vec![leg("prove", (0, 5_300_000), 0, copied)], 0, 5_300_000);
        assert_eq!(
            hedged[0],
            "  took          5.3 s: 5.0 s before a copy or a retry was asked for, 300 ms proving, 0 ms push0"
        );
    }

    #[test]
    fn a_block_without_a_proof_has_no_account() {
        let record = record(9, EmissionOutcome::Abandoned(EndReason::DeadlinePassed));
        assert!(lines(&record.emission, record.stored_at).is_empty());
        assert!(told(Vec::new(), 0, 5).is_empty());
    }
}
