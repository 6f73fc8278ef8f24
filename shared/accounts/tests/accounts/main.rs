//! The broker's configuration, the book, and the decision about replicas.

mod signature;

use push0_accounts::{Book, Control, Member, configuration, enrol, rights_of_member};
use push0_domain::{ProverId, message::Role};
use std::path::Path;

fn member(role: Role, zkvm: &str, key: &str, fleet: bool) -> Member {
    Member {
        role,
        zkvm: zkvm.parse().expect("a name"),
        key: key.into(),
        fleet,
    }
}

fn id(name: &str) -> ProverId {
    name.parse().expect("a name")
}

/// A book whose keys are the names of their owners.
fn book() -> Book {
    let mut book = Book {
        issuer: "A-ISSUER".into(),
        ..Book::default()
    };
    for user in Control::ALL {
        book.control
            .insert(user, format!("U-{}", user.as_str().to_uppercase()));
    }
    for (name, role, fleet) in [
        ("gpu-1", Role::Prover, false),
        ("mock-provers", Role::Prover, true),
        ("mock-verifiers", Role::Verifier, true),
    ] {
        let key = format!("U-{}", name.to_uppercase());
        book.add(id(name), member(role, "mock", &key, fleet))
            .expect("a new name");
    }
    book
}

#[test]
fn the_configuration_is_as_reviewed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accounts/nats-auth.conf");
    let text = configuration(&book());
    if std::env::var_os("PUSH0_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let reviewed = std::fs::read_to_string(&path).expect("the reviewed configuration");
    assert!(
        text == reviewed,
        "the configuration changed: write it with PUSH0_GOLDEN=1, and review the difference of {}",
        path.display()
    );
}

#[test]
fn no_change_of_members_changes_the_section_that_brokers_do_not_reload() {
    let section = |book: &Book| {
        let text = configuration(book);
        text.split_once("\nauthorization {")
            .expect("the section")
            .1
            .to_owned()
    };
    let mut book = book();
    let before = section(&book);
    for name in ["mock-provers", "mock-verifiers", "gpu-1"] {
        assert_eq!(book.revoke(name), Ok(true));
    }
    assert_eq!(section(&book), before);
    assert!(!configuration(&book).contains("_mock"));
    for (name, restarts) in [
        ("issuer", true),
        ("enroller", true),
        ("operator", false),
        ("gpu-1", false),
    ] {
        assert_eq!(Book::needs_restart(name), restarts, "{name}");
    }
}

#[test]
fn names_are_taken_once_and_needed_users_stay() {
    let mut book = book();
    for taken in ["gpu-1", "ingester", "issuer"] {
        assert!(
            book.add(id(taken), member(Role::Prover, "mock", "U", false))
                .is_err(),
            "{taken}"
        );
    }
    let long = "z".repeat(40);
    assert!(
        book.add(id("long"), member(Role::Prover, &long, "U", true))
            .is_err()
    );
    assert!(
        book.add(id("long"), member(Role::Prover, &long, "U", false))
            .is_ok()
    );
    assert!(book.revoke("operator").is_err());
    assert!(book.revoke("nobody").is_err());
    assert!(book.set_key("nobody", "U".into()).is_err());
    assert_eq!(book.set_key("operator", "U-NEW".into()), Ok(()));
    assert_eq!(book.control[&Control::Operator], "U-NEW");
    assert_eq!(book.revoke("mock-abcdefghijklmnop"), Ok(false));
    assert_eq!(book.revoked, [id("mock-abcdefghijklmnop")].into());
}

#[test]
fn a_book_survives_its_file() {
    let book = book();
    let text = serde_json::to_string(&book).expect("JSON");
    assert_eq!(serde_json::from_str::<Book>(&text).expect("a book"), book);
    assert_eq!(Book::default().missing().len(), Control::ALL.len() + 1);
    assert!(book.missing().is_empty());
}

#[test]
fn two_members_share_no_right_to_speak_for_each_other() {
    let zkvm = "mock".parse().expect("a name");
    let of = |name: &str| rights_of_member(Role::Prover, &zkvm, &id(name), &format!("U-{name}"));
    let (one, other) = (of("p1"), of("p2"));
    let own = |rights: &push0_accounts::Rights, name: &str| {
        let rows = rights.publish.iter().chain(&rights.subscribe);
        rows.filter(|row| row.split('.').any(|token| token == name))
            .count()
    };
    assert!(own(&one, "p1") > 3);
    assert_eq!((own(&one, "p2"), own(&other, "p1")), (0, 0));
}

#[test]
fn a_name_follows_from_the_key_and_a_seed_stays_out_of_text() {
    let (credential, _) = Book::draw(false);
    let (one, other) = (
        enrol::enrol(&credential).expect("it enrols"),
        enrol::enrol(&credential).expect("it enrols"),
    );
    let zkvm = "mock".parse().expect("a name");
    let name = |key: &str| enrol::name_of(&zkvm, key).expect("a name");
    assert_ne!(name(&one.key), name(&other.key));
    assert_eq!(name(&one.key), name(&one.key));
    assert!(!format!("{one:?}").contains(&one.seed));
    assert!(enrol::enrol("no seed").is_err());
}
