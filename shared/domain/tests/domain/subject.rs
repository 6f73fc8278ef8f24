use crate::strategy;
use proptest::prelude::*;
use push0_domain::{
    BlockHash, BlockKey, Participant,
    subject::{self, AttemptKey, Kind, ROOT, Report},
};
use std::collections::HashMap;

/// The broker's rule for subjects of published messages.
fn is_publishable(subject: &str) -> bool {
    subject.len() < 4096
        && subject
            .split('.')
            .all(|token| !token.is_empty() && !token.contains(['*', '>', ' ', '\t', '\r', '\n']))
}

/// Returns whether a filter with `*` and a final `>` selects a subject, by the broker's rules.
fn selects(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in filter.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

proptest! {
    #[test]
    fn every_subject_of_an_attempt_is_read_back(key in strategy::attempt_key(), prover in strategy::prover()) {
        for (subject, kind) in [(subject::task(&key), Kind::Task), (subject::stage(&key), Kind::Stage)] {
            prop_assert!(is_publishable(&subject), "{}", subject);
            prop_assert_eq!(AttemptKey::parse(&subject, kind).unwrap(), key.clone());
        }
        let public = "UABC";
        for (subject, kind, of) in [
            (subject::check(&prover, &key, None), Kind::Check, None),
            (subject::check(&prover, &key, Some(public)), Kind::Check, Some(public)),
            (subject::result(&prover, &key, None), Kind::Result, None),
            (subject::result(&prover, &key, Some(public)), Kind::Result, Some(public)),
            (subject::verdict(&prover, &key), Kind::Verdict, None),
        ] {
            prop_assert!(is_publishable(&subject), "{}", subject);
            let report = Report { speaker: Some(prover.clone()), attempt: key.clone(), key: of.map(str::to_owned) };
            prop_assert_eq!(Report::parse(&subject, kind).unwrap(), report);
            prop_assert!(selects(&subject::reports_of_attempt(kind, &key), &subject));
            prop_assert!(AttemptKey::parse(&subject, kind).is_err(), "its speaker must not be overlooked");
        }
        let by_watchdog = Report::parse(&subject::result_by_watchdog(&key), Kind::Result).unwrap();
        prop_assert_eq!(by_watchdog, Report { speaker: None, attempt: key.clone(), key: None });
        let number = key.block.number;
        let record = subject::proof(&key.pipeline, number);
        prop_assert_eq!(subject::number_of_proof(&record), Some(number));
        let padded = record.replace(&format!(".{number}"), &format!(".0{number}"));
        prop_assert_eq!(subject::number_of_proof(&padded), None);
        let with_key = format!("{}UABC", subject::result_by_watchdog(&key).trim_end_matches('_'));
        prop_assert!(Report::parse(&with_key, Kind::Result).is_err(), "a second spelling: {}", with_key);
        // A subject of one stream must not parse as a subject of another.
        prop_assert!(Report::parse(&subject::result(&prover, &key, None), Kind::Verdict).is_err());
        prop_assert!(AttemptKey::parse(&subject::task(&key), Kind::Stage).is_err());
    }

    #[test]
    fn two_attempts_that_differ_have_two_subjects(
        a in strategy::attempt_key(),
        b in strategy::attempt_key(),
        swaps in any::<[bool; 7]>(),
    ) {
        // `c` mixes fields of `a` and `b`, so it differs from `a` in few places, as real neighbours do.
        let pick = |from_a: bool| if from_a { &a } else { &b };
        let c = AttemptKey {
            zkvm: pick(swaps[0]).zkvm.clone(),
            pipeline: pick(swaps[1]).pipeline.clone(),
            block: pick(swaps[2]).block,
            proof_type: pick(swaps[3]).proof_type.clone(),
            stage: pick(swaps[4]).stage.clone(),
            index: pick(swaps[5]).index,
            attempt: pick(swaps[6]).attempt,
        };
        prop_assert_eq!(subject::task(&a) == subject::task(&c), a == c);
        let prover = "p".parse().unwrap();
        prop_assert_eq!(subject::result(&prover, &a, None) == subject::result(&prover, &c, None), a == c);
    }

    #[test]
    fn small_neighbouring_attempts_never_share_a_subject(
        keys in proptest::collection::vec(
            ("[a-b]{1,2}", "[a-b]{1,2}", (0u64..3, 1u32..4), 0u8..2, "[a-b]{1,2}", "[a-b]{1,2}", 0u32..12, 1u32..12), 2..200),
    ) {
        let mut seen: HashMap<String, AttemptKey> = HashMap::new();
        for (zkvm, pipeline, (number, blocks), fork, proof_type, stage, index, attempt) in keys {
            let key = AttemptKey {
                zkvm: zkvm.parse().unwrap(),
                pipeline: pipeline.parse().unwrap(),
                block: BlockKey { number, hash_prefix: [fork; 4], blocks },
                proof_type: proof_type.parse().unwrap(),
                stage: stage.parse().unwrap(),
                index,
                attempt,
            };
            let before = seen.insert(subject::task(&key), key.clone());
            prop_assert!(before.is_none_or(|other| other == key));
        }
    }

    #[test]
    fn filters_select_their_own_and_nothing_else(a in strategy::attempt_key(), b in strategy::attempt_key(), p in strategy::prover()) {
        prop_assert_eq!(selects(&subject::tasks_of_zkvm(&a.zkvm), &subject::task(&b)), a.zkvm == b.zkvm);
        prop_assert_eq!(selects(&subject::checks_of_zkvm(&a.zkvm), &subject::check(&p, &b, None)), a.zkvm == b.zkvm);
        let of_block = subject::attempts_of_block(Kind::Task, &a.pipeline, a.block);
        prop_assert!(selects(&of_block, &subject::task(&a)));
        prop_assert_eq!(selects(&of_block, &subject::task(&b)), a.pipeline == b.pipeline && a.block == b.block);
        let of_pipeline = subject::attempts_of_pipeline(Kind::Task, &a.pipeline);
        prop_assert_eq!(selects(&of_pipeline, &subject::task(&b)), a.pipeline == b.pipeline);
        let reports = subject::attempts_of_block(Kind::Check, &a.pipeline, a.block);
        prop_assert!(selects(&reports, &subject::check(&p, &a, None)));
        prop_assert_eq!(selects(&reports, &subject::check(&p, &b, None)), a.pipeline == b.pipeline && a.block == b.block);
        let record = subject::proof(&a.pipeline, a.block.number);
        prop_assert_eq!(subject::number_of_proof(&record), Some(a.block.number));
        for of_block in [subject::block(&a.pipeline), subject::cancel(&a.pipeline)] {
            prop_assert_eq!(subject::pipeline_of_block(&of_block), Some(a.pipeline.clone()));
        }
        prop_assert_eq!(subject::pipeline_of_block(&record), None);
        let results = subject::results_of_pipeline(&a.pipeline);
        let chosen = |subject: &str| results.iter().filter(|filter| selects(filter, subject)).count();
        prop_assert_eq!(chosen(&subject::result(&p, &a, None)), 1);
        prop_assert_eq!(chosen(&subject::verdict(&p, &a)), 1);
        prop_assert_eq!(chosen(&subject::result(&p, &b, None)), usize::from(a.pipeline == b.pipeline));
        prop_assert_eq!(chosen(&subject::ended(&a.pipeline)), 1);
        prop_assert!(selects(&subject::proofs_of_pipeline(&a.pipeline), &subject::proof(&a.pipeline, a.block.number)));
        prop_assert!(!selects(&subject::proofs_of_pipeline(&a.pipeline), &subject::proof(&b.pipeline, 1)) || a.pipeline == b.pipeline);
    }

    #[test]
    fn every_subject_can_be_published_to(
        key in strategy::attempt_key(),
        prover in strategy::prover(),
        number in any::<u64>(),
    ) {
        let participant = Participant { zkvm: key.zkvm.clone(), name: prover.clone() };
        let lease = subject::lease(&key.zkvm, &prover);
        prop_assert_eq!(subject::sender_of_lease(&lease), Some(participant.clone()));
        let notice = subject::notice(&participant, "check-paused");
        prop_assert_eq!(subject::sender_of_notice(&notice), Some(participant.clone()));
        prop_assert!(selects(&subject::notices("check-paused"), &notice));
        for subject in [
            subject::block(&key.pipeline),
            subject::cancel(&key.pipeline),
            subject::ended(&key.pipeline),
            lease,
            notice,
            subject::control(&participant),
            subject::presence(&participant),
            subject::presence_of(&participant, number),
            subject::proof(&key.pipeline, number),
            subject::dead(Some(&key.pipeline), "push0_tasks-1"),
            subject::dead(None, "push0_tasks-1"),
            subject::event(Some(&key.pipeline), "dead-letter"),
        ] {
            prop_assert!(is_publishable(&subject), "{}", subject);
            prop_assert!(subject.starts_with(ROOT));
        }
    }

    #[test]
    fn the_filter_of_a_letter_selects_that_letter_alone(key in strategy::attempt_key()) {
        let filter = subject::dead_of_id("push0_tasks-1").unwrap();
        for pipeline in [Some(&key.pipeline), None] {
            prop_assert!(selects(&filter, &subject::dead(pipeline, "push0_tasks-1")));
            prop_assert!(!selects(&filter, &subject::dead(pipeline, "push0_tasks-2")));
        }
    }

    #[test]
    fn random_texts_never_panic_the_parser(text in "\\PC{0,80}", tail in "[a-z0-9.+-]{0,60}") {
        let _ = AttemptKey::parse(&text, Kind::Task);
        let _ = text.parse::<BlockKey>();
        let _ = text.parse::<BlockHash>();
        // An accepted subject is already in its only spelling.
        if let Ok(key) = AttemptKey::parse(&format!("{ROOT}.task.{tail}"), Kind::Task) {
            prop_assert_eq!(key.to_string(), tail);
        }
    }

    #[test]
    fn a_block_key_has_one_spelling(key in strategy::block_key()) {
        let text = key.to_string();
        prop_assert_eq!(text.parse::<BlockKey>().unwrap(), key);
        for second in [format!("+{text}"), format!("0{text}")] {
            prop_assert!(second.parse::<BlockKey>().is_err());
        }
        let one = format!("{}-1", BlockKey { blocks: 1, ..key });
        prop_assert!(one.parse::<BlockKey>().is_err());
        let upper = text.to_uppercase();
        prop_assert!(upper == text || upper.parse::<BlockKey>().is_err());
    }
}

#[test]
fn no_wildcard_passes_for_the_id_of_a_letter() {
    for text in ["", "*", ">", "a.b", "a b", "a*", &"a".repeat(65)] {
        assert_eq!(subject::dead_of_id(text), None, "{text}");
    }
}

#[test]
fn a_refused_subject_says_why() {
    let good = format!("{ROOT}.task.mock.demo.5-0a0b0c0d.main.prove.0.1");
    assert_eq!(
        subject::task(&AttemptKey::parse(&good, Kind::Task).unwrap()),
        good
    );
    for (bad, why) in [
        (good.replace(".task.", ".result."), "expected it to start with"),
        (good.replace(".0.1", ".0"), "expected 7 tokens"),
        (format!("{good}.2"), "expected 7 tokens"),
        (good.replace("mock", "Mock"), "zkVM name"),
        (good.replace("5-0a0b0c0d", "5"), "block key"),
        (good.replace(".0.1", ".x.1"), "invalid digit"),
        (good.replace(".0.1", ".0.4294967296"), "too large"),
        (good.replace(".0.1", ".00.1"), "one spelling"),
        (good.replace(".0.1", ".+0.1"), "one spelling"),
    ] {
        let error = AttemptKey::parse(&bad, Kind::Task).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(&bad), "{bad}: {error}");
    }
}

#[test]
fn no_prover_speaks_as_the_watchdog_and_the_watchdog_gives_no_verdict() {
    let attempt = "demo.5-0a0b0c0d.main.prove.0.1";
    assert!("_".parse::<push0_domain::ProverId>().is_err());
    for kind in ["check", "verdict"] {
        let kind_of = if kind == "check" {
            Kind::Check
        } else {
            Kind::Verdict
        };
        assert!(Report::parse(&format!("{ROOT}.{kind}.mock._.{attempt}"), kind_of).is_err());
    }
    for bad in [
        "mock",
        "mock.p1",
        "mock..demo",
        "mock.P1.demo.5-0a0b0c0d.main.prove.0.1",
    ] {
        assert!(
            Report::parse(&format!("{ROOT}.result.{bad}"), Kind::Result).is_err(),
            "{bad}"
        );
    }
}

proptest! {
    #[test]
    fn the_subject_of_a_part_names_its_blob_and_block(blob in strategy::blob(), other in strategy::blob_place(), part in 0_u64..512) {
        let subject = subject::blobs::part(&blob, part);
        prop_assert!(is_publishable(&subject));
        prop_assert_eq!(subject::blobs::place(&subject), Some((blob.place.clone(), blob.hash)));
        prop_assert!(selects(&subject::blobs::parts(&blob.place, blob.hash), &subject));
        prop_assert!(selects(&subject::blobs::of_pipeline(&blob.place.pipeline), &subject));
        prop_assert!(selects(&subject::blobs::of_number(&blob.place.pipeline, blob.place.number), &subject));
        prop_assert_eq!(selects(&subject::blobs::of_place(&other), &subject), other == blob.place);
        prop_assert_eq!(subject::blobs::place(&subject.replace(".blob.", ".task.")), None);
        prop_assert_eq!(subject::blobs::place(&format!("{subject}.0")), None);
    }
}
