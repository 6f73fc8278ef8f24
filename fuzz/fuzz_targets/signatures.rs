//! Signatures of results in JSON, with the prover that they are said to be of. Only a holder of a key signs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use push0_accounts::{Book, signature::check};
use push0_domain::{
    ProverId, ZkvmId,
    codec::{Encoding, decode, encode},
    signature::Signature,
};
use push0_fuzz::{
    fleet::{self, Owner},
    seeds,
};
use std::sync::LazyLock;

static BOOK: LazyLock<Book> = LazyLock::new(fleet::book);
const STATEMENT: &str = "push0-result-v1\n";

fn read(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (Some(prover), Some(body)) = (parts.next(), parts.next()) else {
        return;
    };
    let Ok(signature) = decode::<Signature>(body, Encoding::Json) else {
        return;
    };
    let prover = std::str::from_utf8(prover)
        .ok()
        .and_then(|name| name.parse::<ProverId>().ok());
    let own = fleet::name(&signature.key);
    for zkvm in ["mock", "other"] {
        let zkvm: ZkvmId = zkvm.parse().expect("a name");
        for prover in prover.iter().chain(&own) {
            if check(&BOOK, (&zkvm, prover), STATEMENT, &signature).is_ok() {
                assert!(zkvm.as_str() == "mock" && signature.verifies(STATEMENT));
                assert!(check(&BOOK, (&zkvm, prover), "another statement", &signature).is_err());
            }
        }
    }
}

/// Returns signatures of the prover in the book and of a replica.
fn known() -> Vec<Vec<u8>> {
    let replica = fleet::replica();
    let signed = |seed: &str, key: &str, word: Option<&str>| {
        let signature = Signature {
            key: key.to_owned(),
            word: word.map(str::to_owned),
            bytes: fleet::sign(seed, STATEMENT.as_bytes()),
        };
        encode(&signature, Encoding::Json).unwrap_or_default()
    };
    let named = signed(&fleet::seed(Owner::Prover), &fleet::public(Owner::Prover), None);
    let enrolled = signed(&replica.seed, &replica.key, Some(&replica.word));
    let name = fleet::name(&replica.key)
        .map(|name| name.to_string())
        .unwrap_or_default();
    vec![
        [fleet::PROVER.as_bytes(), b"\n", &named].concat(),
        [name.as_bytes(), b"\n", &enrolled].concat(),
    ]
}

fuzz_target!(
    init: seeds::write(known()),
    |input: &[u8]| read(input)
);
