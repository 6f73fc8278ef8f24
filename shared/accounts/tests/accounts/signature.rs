//! Who signed: the prover with the key in the book, or a replica whose fleet is in the book, and no other.

use push0_accounts::{
    Book, Member,
    enrol::{self, Enrolment, Refused},
    signature::{NotSigned, check},
};
use push0_domain::{ProverId, ZkvmId, message::Role, signature::Signature};

const STATEMENT: &str = "push0-result-v1\n…\n";

fn zkvm() -> ZkvmId {
    "mock".parse().expect("a name")
}

/// A book with the prover p1, the verifier v1 and the fleet `fleet`, and the seeds of their keys.
fn book() -> (Book, [String; 3]) {
    let mut book = Book::default();
    let seeds = [
        ("p1", Role::Prover, false),
        ("v1", Role::Verifier, false),
        ("fleet", Role::Prover, true),
    ]
    .map(|(name, role, fleet)| {
        let (seed, key) = Book::draw(false);
        let member = Member {
            role,
            zkvm: zkvm(),
            key,
            fleet,
        };
        book.add(name.parse().expect("a name"), member)
            .expect("a new name");
        seed
    });
    (book, seeds)
}

fn sign(seed: &str, word: Option<&str>) -> Signature {
    let pair = nkeys::KeyPair::from_seed(seed).expect("a seed");
    Signature {
        key: pair.public_key(),
        word: word.map(str::to_owned),
        bytes: pair.sign(STATEMENT.as_bytes()).expect("a seed"),
    }
}

fn of_replica(replica: &Enrolment) -> (ProverId, Signature) {
    let name = enrol::name_of(&zkvm(), &replica.key).expect("a name");
    (name, sign(&replica.seed, Some(&replica.word)))
}

#[test]
fn a_named_prover_signs_with_its_key_in_the_book() {
    let (book, [p1, v1, fleet]) = book();
    let judge = |name: &str, zkvm: &str, statement, signature: &Signature| {
        let (name, zkvm) = (name.parse().expect("a name"), zkvm.parse().expect("a name"));
        check(&book, (&zkvm, &name), statement, signature)
    };
    let own = sign(&p1, None);
    assert_eq!(judge("p1", "mock", STATEMENT, &own), Ok(()));
    let wrong = Err(NotSigned::Wrong("p1".parse().expect("a name")));
    assert_eq!(judge("p1", "mock", "another statement", &own), wrong);
    let is_stranger = |judged: Result<(), NotSigned>| matches!(judged, Err(NotSigned::Stranger { .. }));
    assert!(is_stranger(judge("p1", "miden", STATEMENT, &own)));
    assert!(is_stranger(judge("p2", "mock", STATEMENT, &own)));
    assert!(is_stranger(judge("p1", "mock", STATEMENT, &sign(&v1, None))));
    assert!(is_stranger(judge("v1", "mock", STATEMENT, &sign(&v1, None))));
    assert!(is_stranger(judge(
        "fleet",
        "mock",
        STATEMENT,
        &sign(&fleet, None)
    )));
}

#[test]
fn a_replica_signs_with_its_own_key_and_the_word_of_its_fleet() {
    let (mut book, [p1, _, credential]) = book();
    let replica = enrol::enrol(&credential).expect("a credential");
    let (name, signature) = of_replica(&replica);
    assert_eq!(check(&book, (&zkvm(), &name), STATEMENT, &signature), Ok(()));
    let (other, _) = of_replica(&enrol::enrol(&credential).expect("a credential"));
    let judged = check(&book, (&zkvm(), &other), STATEMENT, &signature);
    assert!(matches!(judged, Err(NotSigned::Stranger { .. })), "{judged:?}");
    // A word for another key, no word, and the word of a key that is no fleet's.
    let (_, borrowed) = of_replica(&Enrolment {
        seed: p1.clone(),
        ..replica.clone()
    });
    for (signature, refusal) in [
        (borrowed, Refused::WrongSignature),
        (
            of_replica(&enrol::enrol(&p1).expect("a seed")).1,
            Refused::UnknownCredential(sign(&p1, None).key),
        ),
    ] {
        let judged = check(&book, (&zkvm(), &name), STATEMENT, &signature);
        assert_eq!(judged, Err(NotSigned::Refused(refusal)));
    }
    book.revoke(name.as_str()).expect("a replica");
    let judged = check(&book, (&zkvm(), &name), STATEMENT, &signature);
    assert_eq!(judged, Err(NotSigned::Refused(Refused::Revoked(name))));
}
