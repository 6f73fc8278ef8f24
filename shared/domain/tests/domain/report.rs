//! Seals and reports: only an unchanged header that the dispatcher sealed, told by its holder, is believed.

use crate::strategy;
use proptest::prelude::*;
use push0_domain::{
    BlobPlace, BlobRef, Payload, Payloads, ProverId, SealKeys,
    message::{Failure, FailureClass, Lease, Outcome, SLOTS_MAX, TaskHeader, TaskResult, Verdict},
    report::{self, Dropped, HELD_MAX, Refusal},
    seal::Seal,
    seal_keys::SealKey,
    subject::{self, Kind},
};

fn keys(first: u8) -> SealKeys {
    SealKeys::new(SealKey::new([first; 32]))
}

fn id(name: &str) -> ProverId {
    name.parse().expect("a name")
}

fn completed(header: TaskHeader) -> TaskResult {
    TaskResult {
        header,
        prover: id("p1"),
        outcome: Outcome::Completed {
            outputs: Payloads::one(Payload::empty()),
        },
        inputs: None,
        prove_us: 1,
        transfer_us: 0,
        waited_us: 0,
        signature: None,
        verdict: None,
    }
}

/// The inputs that headers are released with.
fn inputs() -> Payloads {
    Payloads::one(Payload::Inline(vec![7]))
}

fn failed(header: TaskHeader, class: FailureClass) -> TaskResult {
    TaskResult {
        outcome: Outcome::Failed(Failure::new(class, "no")),
        inputs: Some(inputs()),
        ..completed(header)
    }
}

fn verified(header: TaskHeader, verifier: &str) -> TaskResult {
    TaskResult {
        verdict: Some(Verdict {
            verifier: id(verifier),
            verify_us: 1,
            waited_us: 0,
            invalid: None,
        }),
        ..completed(header)
    }
}

proptest! {
    #[test]
    fn a_seal_fits_its_header_and_its_key_only(
        header in strategy::header(),
        other in strategy::header(),
        bit in 0_usize..256,
    ) {
        let sealed = keys(1).seal(header.clone()).unwrap();
        prop_assert!(keys(1).verify(&sealed));
        prop_assert!(!keys(2).verify(&sealed));
        prop_assert!(!keys(1).verify(&header) || header.seal == sealed.seal);
        let mut cracked = sealed.clone();
        cracked.seal.0[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!keys(1).verify(&cracked));
        // Each field alone, taken from another header.
        let TaskHeader {
            id, attempt, hedge_of, zkvm, context, kind, of, timeout_ms, hedge_after_ms, attempts_max, give_up_at, check,
            program_id, path, seal: _,
        } = other;
        let changed = [
            TaskHeader { id, ..sealed.clone() },
            TaskHeader { attempt, ..sealed.clone() },
            TaskHeader { hedge_of, ..sealed.clone() },
            TaskHeader { zkvm, ..sealed.clone() },
            TaskHeader { context, ..sealed.clone() },
            TaskHeader { kind, ..sealed.clone() },
            TaskHeader { of, ..sealed.clone() },
            TaskHeader { timeout_ms, ..sealed.clone() },
            TaskHeader { hedge_after_ms, ..sealed.clone() },
            TaskHeader { attempts_max, ..sealed.clone() },
            TaskHeader { give_up_at, ..sealed.clone() },
            TaskHeader { check, ..sealed.clone() },
            TaskHeader { program_id, ..sealed.clone() },
            TaskHeader { path, ..sealed.clone() },
        ];
        for changed in changed {
            prop_assert_eq!(keys(1).verify(&changed), changed == sealed);
        }
    }

    #[test]
    fn a_rotation_keeps_the_seals_of_the_last_three_keys(header in strategy::header()) {
        let mut keys = keys(0);
        let sealed = keys.seal(header.clone()).unwrap();
        for rotation in 1..=3 {
            keys = keys.rotated(SealKey::new([rotation; 32]));
            prop_assert!(keys.verify(&sealed));
            prop_assert!(keys.verify(&keys.seal(header.clone()).unwrap()));
        }
        prop_assert!(!keys.rotated(SealKey::new([9; 32])).verify(&sealed));
    }

    #[test]
    fn a_report_is_believed_from_the_one_that_may_give_it(header in strategy::header()) {
        let keys = keys(1);
        let seal = Seal::of_inputs(&inputs()).unwrap();
        let sealed = |check| keys.seal(TaskHeader { check, seal, ..header.clone() }).unwrap();
        let (checked, plain) = (sealed(true), sealed(false));
        let (p1, p2, v1) = (id("p1"), id("p2"), id("v1"));
        let key = plain.key();
        let admit = |subject: &str, kind, result: &TaskResult| report::admit(subject, kind, result, &keys).map(drop);
        let result = subject::result(&p1, &key, None);
        prop_assert_eq!(admit(&result, Kind::Result, &completed(plain.clone())), Ok(()));
        prop_assert_eq!(admit(&result, Kind::Result, &failed(plain.clone(), FailureClass::Fatal)), Ok(()));
        prop_assert_eq!(admit(&subject::result(&p2, &key, None), Kind::Result, &completed(plain.clone())), Err(Refusal::Speaker));
        prop_assert_eq!(admit(&result, Kind::Result, &verified(plain.clone(), "v1")), Err(Refusal::Speaker));
        prop_assert_eq!(admit(&result, Kind::Result, &completed(header.clone())).is_ok(), header == plain);
        // Another attempt is made from a failure, so no one may remove or replace the inputs.
        let with = |inputs| TaskResult { inputs, ..failed(plain.clone(), FailureClass::Retryable) };
        prop_assert_eq!(admit(&result, Kind::Result, &with(None)), Err(Refusal::Inputs));
        let others = Payloads::one(Payload::Inline(vec![8]));
        prop_assert_eq!(admit(&result, Kind::Result, &with(Some(others))), Err(Refusal::Inputs));
        // The watchdog reports failures only.
        let by_watchdog = subject::result_by_watchdog(&key);
        prop_assert_eq!(admit(&by_watchdog, Kind::Result, &failed(plain.clone(), FailureClass::Died)), Ok(()));
        prop_assert_eq!(admit(&by_watchdog, Kind::Result, &completed(plain.clone())), Err(Refusal::Speaker));
        // Only an attempt with a verifier has a check, and a verifier speaks for itself.
        let check = subject::check(&p1, &key, None);
        let unverified = |header: &TaskHeader| TaskResult { inputs: Some(inputs()), ..completed(header.clone()) };
        prop_assert_eq!(admit(&check, Kind::Check, &unverified(&checked)), Ok(()));
        prop_assert_eq!(admit(&check, Kind::Check, &unverified(&plain)), Err(Refusal::Speaker));
        prop_assert_eq!(admit(&check, Kind::Check, &completed(checked.clone())), Err(Refusal::Inputs));
        // A verifier, which has no keys, works for no check that its sender may not have written.
        let works_for = |subject: &str, check: &TaskResult| {
            report::admit_unsealed(subject, Kind::Check, check).map(|report| report.speaker)
        };
        let forged = TaskHeader { seal, ..checked.clone() };
        prop_assert_eq!(works_for(&check, &unverified(&forged)), Ok(Some(p1.clone())));
        prop_assert_eq!(works_for(&subject::check(&p2, &key, None), &unverified(&checked)), Err(Refusal::Speaker));
        prop_assert_eq!(works_for(&check, &failed(checked.clone(), FailureClass::Fatal)), Err(Refusal::Speaker));
        prop_assert_eq!(works_for(&check, &unverified(&plain)), Err(Refusal::Speaker));
        let another = TaskHeader { attempt: checked.attempt ^ 1, ..checked.clone() };
        prop_assert_eq!(works_for(&check, &unverified(&another)), Err(Refusal::Attempt));
        let elsewhere = TaskHeader { zkvm: "elsewhere".parse().unwrap(), ..checked.clone() };
        prop_assert_eq!(works_for(&check, &unverified(&elsewhere)), Err(Refusal::Attempt));
        let verdict = subject::verdict(&v1, &key);
        prop_assert_eq!(admit(&verdict, Kind::Verdict, &verified(checked.clone(), "v1")), Ok(()));
        prop_assert_eq!(admit(&verdict, Kind::Verdict, &verified(checked.clone(), "v2")), Err(Refusal::Speaker));
        prop_assert_eq!(admit(&verdict, Kind::Verdict, &verified(plain.clone(), "v1")), Err(Refusal::Speaker));
        prop_assert_eq!(admit(&verdict, Kind::Verdict, &completed(checked.clone())), Err(Refusal::Speaker));
        prop_assert_eq!(admit(&verdict, Kind::Verdict, &failed(checked.clone(), FailureClass::Fatal)), Err(Refusal::Speaker));
        prop_assert_eq!(admit(&verdict, Kind::Verdict, &failed(checked, FailureClass::Surroundings)), Ok(()));
        prop_assert_eq!(admit(&verdict, Kind::Result, &completed(plain)), Err(Refusal::Subject));
    }

    #[test]
    fn a_report_is_about_the_attempt_of_its_subject(
        header in strategy::header(),
        other in strategy::attempt_key(),
    ) {
        let header = keys(1).seal(header).unwrap();
        let mut other_zkvm = header.key();
        other_zkvm.zkvm = other.zkvm.clone();
        for key in [other, other_zkvm] {
            let subject = subject::result(&id("p1"), &key, None);
            let refused = report::admit(&subject, Kind::Result, &completed(header.clone()), &keys(1));
            prop_assert_eq!(refused.is_ok(), key == header.key());
        }
    }

    #[test]
    fn a_lease_speaks_for_its_sender_and_of_sealed_work_of_its_zkvm(
        lease in strategy::lease(),
        other in strategy::lease(),
    ) {
        let keys = keys(1);
        let slots = |slots| slots % (SLOTS_MAX + 1);
        let (mut lease, listed) = (Lease { slots: slots(lease.slots), ahead: slots(lease.ahead), ..lease }, other.held.len());
        let forged = lease.held.len();
        for mut held in other.held {
            held.header.zkvm = lease.zkvm.clone();
            held.header = keys.seal(held.header).unwrap();
            lease.held.push(held);
        }
        let subject = subject::lease(&lease.zkvm, &lease.prover);
        let mut own = lease.clone();
        // A second copy of a delivery says nothing more.
        own.held.extend_from_within(..);
        let dropped = |unsealed, repeated| Ok(Dropped { unsealed, repeated });
        prop_assert_eq!(report::admit_lease(&subject, &mut own, &keys), dropped(2 * forged, listed));
        prop_assert_eq!(own.held.len(), listed);
        let foreign = subject::lease(&lease.zkvm, &id("someone-else"));
        prop_assert_eq!(report::admit_lease(&foreign, &mut own, &keys), Err(Refusal::Speaker));
        prop_assert_eq!(report::admit_lease_unsealed(&foreign, &mut own), Err(Refusal::Speaker));
        let mut twice = own.clone();
        twice.held.extend_from_within(..);
        prop_assert_eq!(report::admit_lease_unsealed(&subject, &mut twice), dropped(0, listed));
        // Sealed work of another zkVM is nothing to this one.
        own.zkvm = "another".parse().unwrap();
        let subject = subject::lease(&own.zkvm, &own.prover);
        prop_assert_eq!(report::admit_lease_unsealed(&subject, &mut own.clone()), dropped(listed, 0));
        prop_assert_eq!(report::admit_lease(&subject, &mut own, &keys), dropped(listed, 0));
        let mut boastful = Lease { held: Vec::new(), slots: SLOTS_MAX + 1, ..own.clone() };
        prop_assert_eq!(report::admit_lease(&subject, &mut boastful, &keys), Err(Refusal::Size));
        prop_assert_eq!(report::admit_lease_unsealed(&subject, &mut boastful), Err(Refusal::Size));
        if let Some(held) = lease.held.first().cloned() {
            let subject = subject::lease(&lease.zkvm, &lease.prover);
            for (slots, fits) in [(1, 72), (SLOTS_MAX, HELD_MAX)] {
                lease.slots = slots;
                lease.held = vec![held.clone(); fits];
                prop_assert!(report::admit_lease(&subject, &mut lease.clone(), &keys).is_ok());
                lease.held.push(held.clone());
                prop_assert_eq!(report::admit_lease(&subject, &mut lease, &keys), Err(Refusal::Size));
            }
        }
    }
}

#[test]
fn a_key_is_read_back_and_never_shown() {
    let keys = keys(7).rotated(SealKey::new([8; 32]));
    let text = serde_json::to_string(&keys).unwrap();
    assert_eq!(serde_json::from_str::<SealKeys>(&text).unwrap(), keys);
    assert!(!format!("{keys:?}").contains("0808"));
}

#[test]
fn a_list_that_claims_the_largest_lengths_has_the_largest_length() {
    let place = BlobPlace {
        zkvm: None,
        writer: id("collector"),
        pipeline: "demo".parse().expect("a name"),
        number: 1,
    };
    let blob = BlobRef {
        len: u64::MAX,
        ..BlobRef::of(place, b"")
    };
    let list = Payloads::List(vec![Payload::Blob(blob.clone()); 2]);
    let chunked = Payloads::Chunked {
        count: 257,
        chunks: vec![blob; 2],
    };
    assert_eq!([list, chunked].map(|list| list.blob_len()), [u64::MAX; 2]);
}

/// Eight results that claimed 4,294,967,295 outputs kept the collector of all pipelines busy for ever.
#[test]
fn a_list_that_claims_more_than_it_has_is_unreadable() {
    for (count, chunks) in [(u32::MAX, 0), (1, 0), (257, 1), (0, 1), (256, 2), (100_001, 391)] {
        let place = r#"{"zkvm": null, "writer": "collector", "pipeline": "demo", "number": 1}"#;
        let chunk = format!(
            "{{\"place\": {place}, \"hash\": \"{}\", \"len\": 1}}",
            "ab".repeat(32)
        );
        let list = vec![chunk; chunks].join(",");
        let text = format!("{{\"chunked\": {{\"count\": {count}, \"chunks\": [{list}]}}}}");
        let read = serde_json::from_str::<Payloads>(&text);
        assert!(
            read.unwrap_err().to_string().contains("chunks"),
            "{count} in {chunks}"
        );
    }
}

proptest! {
    #[test]
    fn a_completed_attempt_without_a_usable_output_has_failed(header in strategy::header(), count in 0_u32..4, long in any::<bool>()) {
        let is_split = header.kind == push0_domain::message::StageKind::Split;
        let output = Payload::Inline(vec![7; if long { push0_domain::payload::INLINE_MAX + 1 } else { 8 }]);
        let mut result = completed(header);
        result.outcome = Outcome::Completed { outputs: Payloads::List(vec![output; count as usize]) };
        let is_usable = !long && (count == 1 || is_split && count > 0);
        prop_assert_eq!(result.failure().map(|failure| failure.class), (!is_usable).then_some(FailureClass::Retryable));
    }
}
