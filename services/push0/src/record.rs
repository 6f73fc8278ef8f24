//! A block's record as tables and JSON show it, and the choice of records by their values.

use crate::output;
use crate::table::{self, Align, NONE};
use push0_bus::Kept;
use push0_domain::account::Account;
use push0_domain::codec::CodecError;
use push0_domain::message::{Emission, EmissionOutcome, Proof};
use push0_domain::trace::TraceContext;
use push0_domain::{BlockRef, ProofType, ProverId, Timestamp};
use push0_operate::outcome;
use serde::Serialize;
use std::collections::BTreeSet;

/// Stored record of a block or range.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) emission: Emission,
    pub(crate) sequence: u64,
    pub(crate) stored_at: Timestamp,
    pub(crate) trace: TraceContext,
}

impl Record {
    /// Returns the record; `None` for an unreadable one, which is named on stderr.
    pub(crate) fn read(kept: Kept<Emission>) -> Option<Self> {
        let named = |error: &CodecError| {
            let text = format!(
                "passed over {} (sequence {}): {error}; `push0 repair` mends it",
                kept.subject, kept.sequence
            );
            output::note(&text);
        };
        let emission = kept.body.inspect_err(named).ok()?;
        Some(Self {
            emission,
            sequence: kept.sequence,
            stored_at: kept.stored_at,
            trace: kept.trace,
        })
    }

    /// Returns the proofs; empty if the block was not proved.
    pub(crate) fn proofs(&self) -> &[Proof] {
        match &self.emission.outcome {
            EmissionOutcome::Proved(proofs) => proofs,
            _ => &[],
        }
    }

    /// Returns whether the block was proved and each of its proofs was verified by a verifier.
    pub(crate) fn is_verified(&self) -> bool {
        !self.proofs().is_empty() && self.proofs().iter().all(|proof| proof.verifier.is_some())
    }

    /// Returns whether a proof of the block lacks the verdict that it needs: those of the `unchecked` types need none.
    pub(crate) fn lacks_verdict(&self, unchecked: &BTreeSet<ProofType>) -> bool {
        let lacks = |proof: &Proof| proof.verifier.is_none() && !unchecked.contains(&proof.proof_type);
        self.proofs().iter().any(lacks)
    }

    /// Returns where the time of the block went; `None` without a proof.
    fn account(&self) -> Option<Account> {
        self.emission.account(self.stored_at)
    }

    /// Returns push0's own part of the block's time, in microseconds; `None` without a proof.
    pub(crate) fn overhead_us(&self) -> Option<u64> {
        self.account().map(|account| account.own_us)
    }

    /// Returns the longest final-stage time among the block's proofs, in microseconds.
    pub(crate) fn prove_us(&self) -> Option<u64> {
        self.proofs().iter().map(|proof| proof.prove_us).max()
    }

    /// Returns the longest time in which one of the final stages read its inputs and stored its outputs, in
    /// microseconds.
    fn transfer_us(&self) -> Option<u64> {
        self.proofs().iter().map(|proof| proof.transfer_us).max()
    }

    fn verify_us(&self) -> Option<u64> {
        self.proofs()
            .iter()
            .filter(|p| p.verifier.is_some())
            .map(|proof| proof.verify_us)
            .max()
    }

    /// Returns the id of the block's trace.
    pub(crate) fn trace_id(&self) -> Option<&str> {
        trace_id(&self.trace)
    }
}

/// Returns the trace id in a `traceparent` header.
pub(crate) fn trace_id(trace: &TraceContext) -> Option<&str> {
    trace.traceparent.as_deref()?.split('-').nth(1)
}

/// The wanted records: those that fit every given value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// The outcome in words, as tables show it.
    pub(crate) outcome: Option<String>,
    /// A prover or verifier of one of the block's proofs.
    pub(crate) prover: Option<ProverId>,
    /// The lowest block number.
    pub(crate) from: Option<u64>,
    /// The highest block number.
    pub(crate) to: Option<u64>,
}

impl Filter {
    /// Returns whether a record is wanted. A range is wanted if one of its blocks is.
    pub(crate) fn fits(&self, record: &Record) -> bool {
        let Emission { first, last, .. } = &record.emission;
        let is_by = |prover: &ProverId| {
            let proofs = record.proofs().iter();
            proofs
                .clone()
                .any(|proof| proof.prover == *prover || proof.verifier.as_ref() == Some(prover))
        };
        self.from.is_none_or(|from| last.number >= from)
            && self.to.is_none_or(|to| first.number <= to)
            && self.prover.as_ref().is_none_or(is_by)
            && self
                .outcome
                .as_ref()
                .is_none_or(|wanted| outcome(&record.emission.outcome) == *wanted)
    }
}

/// Columns of the table whose rows [`row`] returns.
pub(crate) const COLUMNS: [(&str, Align); 11] = [
    ("block", Align::Right),
    ("hash", Align::Left),
    ("txs", Align::Right),
    ("outcome", Align::Left),
    ("zkvm", Align::Left),
    ("proof bytes", Align::Right),
    ("prove ms", Align::Right),
    ("transfer ms", Align::Right),
    ("verify ms", Align::Right),
    ("overhead ms", Align::Right),
    ("verified by", Align::Left),
];

/// Returns a record as a row of a table.
pub(crate) fn row(record: &Record) -> Vec<String> {
    let Emission {
        first,
        last,
        facts,
        outcome: what,
        ..
    } = &record.emission;
    let proofs = record.proofs();
    let each = |text: &dyn Fn(&Proof) -> String| match proofs {
        [] => NONE.to_owned(),
        proofs => proofs.iter().map(text).collect::<Vec<_>>().join(","),
    };
    let optional_ms =
        |us: Option<u64>| us.map_or(NONE.into(), |us| table::ms(i64::try_from(us).unwrap_or(i64::MAX)));
    let number = numbers(first, last);
    vec![
        number,
        table::short(&last.hash),
        facts.transactions.to_string(),
        outcome(what),
        each(&|proof| proof.zkvm.to_string()),
        each(&|proof| proof.bytes.to_string()),
        optional_ms(record.prove_us()),
        optional_ms(record.transfer_us()),
        optional_ms(record.verify_us()),
        optional_ms(record.overhead_us()),
        each(&|proof| proof.verifier.as_ref().map_or("-".into(), ToString::to_string)),
    ]
}

/// Returns the block numbers of a record: `7`, or `7..9` for a range.
pub(crate) fn numbers(first: &BlockRef, last: &BlockRef) -> String {
    if first == last {
        last.number.to_string()
    } else {
        format!("{}..{}", first.number, last.number)
    }
}

/// A record as JSON: the emission and the values derived for tables.
#[derive(Debug, Serialize)]
pub(crate) struct RecordJson<'a> {
    sequence: u64,
    stored_at: Timestamp,
    overhead_us: Option<u64>,
    account: Option<Account>,
    trace_id: Option<&'a str>,
    emission: &'a Emission,
}

impl<'a> From<&'a Record> for RecordJson<'a> {
    fn from(record: &'a Record) -> Self {
        Self {
            sequence: record.sequence,
            stored_at: record.stored_at,
            overhead_us: record.overhead_us(),
            account: record.account(),
            trace_id: record.trace_id(),
            emission: &record.emission,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use push0_domain::message::BlockFacts;
    use push0_domain::path::{Leg, Parts};
    use push0_domain::{Announcement, BlockHash, Payload};

    pub(crate) fn record(number: u64, outcome: EmissionOutcome) -> Record {
        let block = BlockRef {
            number,
            hash: BlockHash([7; 32]),
        };
        let emission = Emission {
            pipeline: "demo".parse().unwrap(),
            first: block,
            last: block,
            hashes: Vec::new(),
            standing: Vec::new(),
            parent_hash: BlockHash([6; 32]),
            outcome,
            next: number + 1,
            announcement: Announcement(number),
            stored_at: Timestamp(1_000_000),
            order_us: 0,
            facts: BlockFacts {
                transactions: 12,
                ..BlockFacts::default()
            },
        };
        let traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        let trace = TraceContext {
            traceparent,
            tracestate: None,
        };
        Record {
            emission,
            sequence: number + 1,
            stored_at: Timestamp(3_004_250),
            trace,
        }
    }

    pub(crate) fn proof(verifier: Option<&str>) -> Proof {
        Proof {
            proof_type: "miden".parse().unwrap(),
            zkvm: "miden".parse().unwrap(),
            program_id: None,
            prover: "miden-1".parse().unwrap(),
            verifier: verifier.map(|v| v.parse().unwrap()),
            payload: Payload::Inline(vec![1, 2, 3]),
            bytes: 3,
            prove_us: 1_990_000,
            transfer_us: 30_000,
            verify_us: 10_000,
            attempt: 1,
            path: vec![Leg {
                stage: "prove".parse().unwrap(),
                ready_at: Timestamp(1_000_000),
                ended_at: Timestamp(3_002_000),
                prover: "miden-1".parse().unwrap(),
                verifier: verifier.map(|v| v.parse().unwrap()),
                failed: 0,
                parts: Parts {
                    prove_us: 1_990_000,
                    verify_us: 10_000,
                    ..Parts::default()
                },
            }],
            signed: None,
        }
    }

    #[test]
    fn a_proved_block_is_a_row() {
        let record = record(41, EmissionOutcome::Proved(vec![proof(Some("miden-verifier-1"))]));
        let expected = [
            "41",
            "0x07070707",
            "12",
            "proved",
            "miden",
            "3",
            "1990.0",
            "30.0",
            "10.0",
            "4.3",
            "miden-verifier-1",
        ];
        assert_eq!(row(&record), expected);
        assert_eq!(record.overhead_us(), Some(4_250));
        assert_eq!(record.trace_id(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert!(record.is_verified());
    }

    #[test]
    fn a_filter_keeps_what_fits_everything() {
        let proved = record(41, EmissionOutcome::Proved(vec![proof(Some("v1"))]));
        let fits = |filter: Filter| filter.fits(&proved);
        let outcome = |words: &str| Filter {
            outcome: Some(words.into()),
            ..Filter::default()
        };
        let by = |id: &str| Filter {
            prover: Some(id.parse().unwrap()),
            ..Filter::default()
        };
        let between = |from, to| Filter {
            from: Some(from),
            to: Some(to),
            ..Filter::default()
        };
        assert!(fits(Filter::default()) && fits(outcome("proved")) && fits(by("miden-1")) && fits(by("v1")));
        assert!(fits(between(41, 41)) && !fits(between(42, 50)) && !fits(between(1, 40)));
        assert!(!fits(outcome("dead")) && !fits(by("miden-2")));
    }

    #[test]
    fn a_proof_without_a_verifier_is_not_verified() {
        let unverified = record(41, EmissionOutcome::Proved(vec![proof(Some("v")), proof(None)]));
        assert!(!unverified.is_verified() && unverified.lacks_verdict(&BTreeSet::new()));
        assert!(!unverified.lacks_verdict(&BTreeSet::from(["miden".parse().unwrap()])));
        assert_eq!(row(&unverified).last().map(String::as_str), Some("v,-"));
    }

    #[test]
    fn a_block_without_a_proof_is_a_row_without_times() {
        let record = record(
            9,
            EmissionOutcome::Abandoned(push0_domain::message::EndReason::DeadlinePassed),
        );
        assert_eq!(
            row(&record),
            [
                "9",
                "0x07070707",
                "12",
                "too late",
                "-",
                "-",
                "-",
                "-",
                "-",
                "-",
                "-"
            ]
        );
        assert!(!record.is_verified());
    }
}
