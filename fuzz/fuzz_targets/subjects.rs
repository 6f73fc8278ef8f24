//! Subjects and the names in them. A subject that is read has one spelling.
#![no_main]

use libfuzzer_sys::fuzz_target;
use push0_domain::{
    BlockHash, BlockKey, PipelineId,
    payload::BlobHash,
    subject::{self, AttemptKey, Kind, Report, blobs, participant},
};
use push0_fuzz::seeds;

fn read(text: &str) {
    read_names(text);
    for kind in Kind::ALL {
        if let Ok(key) = AttemptKey::parse(text, kind) {
            assert_eq!(text, format!("{}.{}.{key}", subject::ROOT, kind.as_str()));
            assert_eq!(subject::attempt_of(text, kind), Some(key));
        }
    }
    for kind in [Kind::Check, Kind::Result, Kind::Verdict] {
        if let Ok(report) = Report::parse(text, kind) {
            assert_eq!(text, written(kind, &report));
            assert_eq!(subject::attempt_of(text, kind), Some(report.attempt));
        }
    }
    if let Some(spoken) = participant::spoken(text) {
        assert!(text.starts_with(before_rest(&spoken.who.all(spoken.kind)).trim_end_matches('.')));
        if let (Some(pipeline), true) = (&spoken.pipeline, spoken.has_more) {
            assert!(text.starts_with(before_rest(&spoken.who.about(spoken.kind, pipeline))));
        }
    }
    if let Some((place, hash)) = blobs::place(text) {
        let start = format!("{}{hash}.", before_rest(&blobs::of_place(&place)));
        assert!(
            text.strip_prefix(&start)
                .is_some_and(|part| part.parse::<u32>().is_ok())
        );
    }
    if let Some(sender) = subject::sender_of_lease(text) {
        assert_eq!(text, subject::lease(&sender.zkvm, &sender.name));
    }
    if let Some(verifier) = subject::sender_of_notice(text) {
        assert!(
            text.starts_with(&subject::notice(&verifier, ""))
                || text == before_dot(&subject::notice(&verifier, ""))
        );
    }
    if let Some(number) = subject::number_of_proof(text) {
        let pipeline = text
            .split('.')
            .nth(3)
            .and_then(|name| name.parse::<PipelineId>().ok());
        assert_eq!(
            pipeline
                .map(|pipeline| subject::proof(&pipeline, number))
                .as_deref(),
            Some(text)
        );
    }
    if let Some(pipeline) = subject::pipeline_of_block(text) {
        assert!(text == subject::block(&pipeline) || text == subject::cancel(&pipeline));
    }
    if let Some(zkvm) = subject::facts::zkvm_of_hold(text) {
        assert_eq!(text, subject::facts::hold(&zkvm));
    }
}

/// Reads the tokens of subjects by themselves.
fn read_names(text: &str) {
    if let Ok(key) = text.parse::<BlockKey>() {
        assert_eq!(text, key.to_string());
        assert!(key.first() <= key.number);
    }
    if let Ok(hash) = text.parse::<BlockHash>() {
        assert_eq!(hash.to_string().parse(), Ok(hash));
    }
    if let Ok(hash) = text.parse::<BlobHash>() {
        assert_eq!(hash.to_string(), text.to_lowercase());
    }
    if let Ok(name) = text.parse::<PipelineId>() {
        assert_eq!(text, name.as_str());
    }
}

/// Returns the subject of a report.
fn written(kind: Kind, report: &Report) -> String {
    let Report {
        speaker,
        attempt,
        key,
    } = report;
    match (kind, speaker) {
        (Kind::Check, Some(prover)) => subject::check(prover, attempt, key.as_deref()),
        (Kind::Result, Some(prover)) => subject::result(prover, attempt, key.as_deref()),
        (Kind::Result, None) => subject::result_by_watchdog(attempt),
        (Kind::Verdict, Some(verifier)) => subject::verdict(verifier, attempt),
        _ => panic!("{report:?} has no speaker"),
    }
}

/// Returns a filter without its last wildcard.
fn before_rest(filter: &str) -> &str {
    filter.trim_end_matches('>')
}

fn before_dot(text: &str) -> &str {
    text.trim_end_matches('.')
}

/// Returns a subject of each kind.
fn known() -> Vec<Vec<u8>> {
    let attempt = "mock.demo.17-0a1b2c3d-3.fast.prove.0.1";
    let (rest, hash) = ("demo.17-0a1b2c3d.fast.prove.0.1", "5f".repeat(32));
    let mut tails = vec![
        ("block", "demo".to_owned()),
        ("cancel", "demo".to_owned()),
        ("stage", attempt.to_owned()),
        ("task", attempt.to_owned()),
        ("result", format!("mock._.{rest}._")),
        ("verdict", format!("mock.v1.{rest}")),
        ("lease", "mock.p1".to_owned()),
        ("notice", "mock.v1.check-paused".to_owned()),
        ("proof", "demo.17".to_owned()),
        ("blob", format!("_.ingester.demo.17.{hash}.0")),
        ("blob", format!("mock.p1.demo.17.{hash}.3")),
    ];
    tails.extend(["check", "result"].map(|kind| (kind, format!("mock.p1.{rest}._"))));
    let subjects = tails
        .iter()
        .map(|(kind, rest)| format!("{}.{kind}.{rest}", subject::ROOT));
    let others = [
        "held.mock".to_owned(),
        "17-0a1b2c3d".to_owned(),
        hash.clone(),
        format!("0x{hash}"),
    ];
    subjects.chain(others).map(String::into_bytes).collect()
}

fuzz_target!(
    init: seeds::write(known()),
    |text: &str| read(text)
);
