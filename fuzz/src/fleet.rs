//! A book of keys with a prover and a fleet. Its keys follow from constants and open nothing.

use nkeys::{KeyPair, KeyPairType};
use push0_accounts::{
    Book, Member,
    enrol::{self, Enrolment},
};
use push0_domain::{ProverId, ZkvmId, message::Role};

/// The name of the prover in the book.
pub const PROVER: &str = "p1";

/// The owners of keys, each with the byte that its seed repeats.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    /// The account that signs the enroller's answers.
    Issuer = 1,
    /// The prover in the book.
    Prover = 2,
    /// The fleet in the book.
    Fleet = 3,
}

fn pair(owner: Owner) -> KeyPair {
    let kind = match owner {
        Owner::Issuer => KeyPairType::Account,
        Owner::Prover | Owner::Fleet => KeyPairType::User,
    };
    KeyPair::new_from_raw(kind, [owner as u8; 32]).expect("32 bytes are a seed")
}

/// Returns the seed of an owner's key.
pub fn seed(owner: Owner) -> String {
    pair(owner).seed().expect("the pair has its seed")
}

/// Returns the public key of an owner.
pub fn public(owner: Owner) -> String {
    pair(owner).public_key()
}

/// Returns the book: a prover and a fleet of the zkVM `mock`.
pub fn book() -> Book {
    let mut book = Book {
        issuer: public(Owner::Issuer),
        ..Book::default()
    };
    for (name, owner) in [(PROVER, Owner::Prover), ("mock-provers", Owner::Fleet)] {
        let member = Member {
            role: Role::Prover,
            zkvm: zkvm(),
            key: public(owner),
            fleet: matches!(owner, Owner::Fleet),
        };
        let name = name.parse().expect("a name");
        book.add(name, member).expect("the name is new");
    }
    book
}

fn zkvm() -> ZkvmId {
    "mock".parse().expect("a name")
}

/// Draws a replica of the fleet.
pub fn replica() -> Enrolment {
    enrol::enrol(&seed(Owner::Fleet)).expect("the seed is a credential")
}

/// Returns the name of a replica with this key; `None` if the key gives none.
pub fn name(key: &str) -> Option<ProverId> {
    enrol::name_of(&zkvm(), key).ok()
}

/// Signs with the key of a seed.
pub fn sign(seed: &str, said: &[u8]) -> Vec<u8> {
    let pair = KeyPair::from_seed(seed).expect("the seed is one");
    pair.sign(said).expect("the pair has its seed")
}
