//! Reports and leases, each a line with its subject and then its body. Only this dispatcher's attempts are admitted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use push0_domain::{
    SealKeys,
    codec::{Encoding, decode, encode},
    message::{Lease, ResultEvent, TaskHeader, TaskResult},
    report::{self, Refusal},
    seal_keys::SealKey,
    subject::{self, Kind, Report},
};
use push0_fuzz::{body::MESSAGES, seeds};
use std::{collections::HashSet, sync::LazyLock};

static KEYS: LazyLock<SealKeys> = LazyLock::new(|| SealKeys::new(SealKey::new([7; 32])));
static OTHERS: LazyLock<SealKeys> = LazyLock::new(|| SealKeys::new(SealKey::new([8; 32])));

/// Kinds whose subjects [`Report::parse`] reads.
const REPORTS: [Kind; 3] = [Kind::Check, Kind::Result, Kind::Verdict];

fn read(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (Some(line), Some(body)) = (parts.next(), parts.next()) else {
        return;
    };
    let Ok(line) = std::str::from_utf8(line) else {
        return;
    };
    for encoding in [Encoding::Json, Encoding::Bincode] {
        if let Ok(ResultEvent::Attempt(result)) = decode(body, encoding) {
            judge(line, result);
        }
        if let Ok(result) = decode::<TaskResult>(body, encoding) {
            judge(line, result);
        }
        if let Ok(lease) = decode::<Lease>(body, encoding) {
            judge_lease(line, lease);
        }
    }
}

fn judge(line: &str, result: TaskResult) {
    for kind in Kind::ALL {
        let admitted = report::admit_unsealed(line, kind, &result);
        if let Ok(admitted) = &admitted {
            assert_eq!(admitted.attempt, result.header.key());
            let _ = report::admit_signature(admitted, kind, &result);
        }
        // No guess of 16 bytes is right.
        assert!(report::admit(line, kind, &result, &KEYS).is_err());
    }
    // The same report about an attempt that was released.
    let Ok(header) = KEYS.seal(result.header.clone()) else {
        return;
    };
    let sealed = TaskResult { header, ..result };
    is_bound(&sealed.header);
    let attempt = sealed.header.key();
    let key = sealed.signature.as_ref().map(|signature| signature.key.as_str());
    let subjects = [
        (Kind::Check, subject::check(&sealed.prover, &attempt, key)),
        (Kind::Result, subject::result(&sealed.prover, &attempt, key)),
        (Kind::Result, subject::result_by_watchdog(&attempt)),
        (Kind::Verdict, subject::verdict(&sealed.prover, &attempt)),
    ];
    for (kind, subject) in &subjects {
        let Ok(own) = Report::parse(subject, *kind) else {
            // A key is the text of its sender, which may hold a dot.
            continue;
        };
        let admitted = report::admit(subject, *kind, &sealed, &KEYS);
        assert!(!matches!(admitted, Err(Refusal::Seal)), "the seal is right");
        if let Ok(admitted) = admitted {
            assert_eq!(admitted, own);
            assert_eq!(
                report::admit(subject, *kind, &sealed, &OTHERS),
                Err(Refusal::Seal)
            );
            let _ = report::admit_signature(&admitted, *kind, &sealed);
        }
    }
    for kind in REPORTS {
        let _ = report::admit(line, kind, &sealed, &KEYS);
    }
}

/// Checks that the seal of a header is of this header alone.
fn is_bound(header: &TaskHeader) {
    assert!(KEYS.verify(header) && !OTHERS.verify(header));
    let other = TaskHeader {
        attempt: header.attempt.wrapping_add(1),
        ..header.clone()
    };
    assert!(!KEYS.verify(&other));
}

fn judge_lease(line: &str, mut lease: Lease) {
    let listed = lease.held.len();
    if let Ok(dropped) = report::admit_lease(line, &mut lease.clone(), &KEYS) {
        assert_eq!(dropped.unsealed, listed, "no guess of 16 bytes is right");
    }
    for held in &mut lease.held {
        if let Ok(sealed) = KEYS.seal(held.header.clone()) {
            held.header = sealed;
        }
    }
    let own = subject::lease(&lease.zkvm, &lease.prover);
    if let Ok(dropped) = report::admit_lease(&own, &mut lease, &KEYS) {
        let seals: HashSet<_> = lease.held.iter().map(|held| held.header.seal).collect();
        assert_eq!(seals.len(), lease.held.len());
        assert_eq!(dropped.unsealed + dropped.repeated + lease.held.len(), listed);
        assert!(
            lease
                .held
                .iter()
                .all(|held| KEYS.verify(&held.header) && held.header.zkvm == lease.zkvm)
        );
    }
}

/// Returns the page's reports and leases under subjects of their senders, in both encodings.
fn known() -> Vec<Vec<u8>> {
    let lines = seeds::examples("Lease").into_iter().filter_map(|json| {
        let lease: Lease = decode(json.as_bytes(), Encoding::Json).ok()?;
        let bincode = encode(&lease, Encoding::Bincode).ok()?;
        Some((subject::lease(&lease.zkvm, &lease.prover), json, bincode))
    });
    let reports = ["TaskResult", "ResultEvent"].into_iter().flat_map(|name| {
        let kind = MESSAGES.iter().find(|kind| kind.name == name);
        let of = move |json: String| {
            let result: TaskResult =
                decode(json.as_bytes(), Encoding::Json).ok().or_else(|| {
                    match decode(json.as_bytes(), Encoding::Json) {
                        Ok(ResultEvent::Attempt(result)) => Some(result),
                        _ => None,
                    }
                })?;
            let subject = subject::result(&result.prover, &result.header.key(), None);
            let bincode = (kind?.to_bincode)(&json)?;
            Some((subject, json, bincode))
        };
        seeds::examples(name).into_iter().filter_map(of)
    });
    let both = lines.chain(reports).flat_map(|(subject, json, bincode)| {
        [json.into_bytes(), bincode].map(|body| [subject.as_bytes(), b"\n", &body].concat())
    });
    both.collect()
}

fuzz_target!(
    init: seeds::write(known()),
    |input: &[u8]| read(input)
);
