//! Optional keys of a stage, and the reference page, which must list all keys of a pipeline file.

use crate::pipeline::{GOOD, parse};
use push0_domain::pipeline::Pipeline;
use std::time::Duration;

#[test]
fn what_a_stage_takes_at_least_must_fit_its_timeout_and_the_deadline() {
    let hurried = GOOD.replace(
        "policy = \"oldest-first\"",
        "policy = \"deadline\"\ndeadline = \"2h\"",
    );
    let fastest =
        |least: &str| hurried.replace("attempts = 5", &format!("attempts = 5\nfastest = \"{least}\""));
    let reason = |text: &str| parse(text).expect_err("it is refused").to_string();
    let good = parse(&fastest("20s")).expect("valid");
    let proof = &good.proofs[0];
    assert_eq!(
        proof.fastest_after(&"split".parse().unwrap()),
        Duration::from_secs(20)
    );
    assert_eq!(proof.fastest_after(&"prove".parse().unwrap()), Duration::ZERO);
    assert!(reason(&fastest("1m")).contains("fastest: expected less than timeout"));
    assert!(
        reason(&GOOD.replace("attempts = 5", "attempts = 5\nfastest = \"20s\""))
            .contains("fastest: only with policy = \"deadline\"")
    );
    let long = fastest("50s").replace("deadline = \"2h\"", "deadline = \"2m\"");
    let long = long.replace("timeout = \"1m 30s\"", "timeout = \"1m 30s\"\nfastest = \"80s\"");
    assert!(
        reason(&long).contains("its stages take at least 2m 10s, as long as the deadline or longer"),
        "{}",
        reason(&long)
    );
}

#[test]
fn the_provers_with_more_memory_are_other_ones() {
    let with = |zkvm: &str| GOOD.replace("attempts = 5", &format!("attempts = 5\nmore_memory = \"{zkvm}\""));
    let good = parse(&with("mock-large")).expect("valid");
    let zkvms: Vec<String> = good.zkvms().iter().map(ToString::to_string).collect();
    assert_eq!(zkvms, ["mock", "mock-large", "other", "wrapper"]);
    let refused = parse(&with("mock")).expect_err("it is refused").to_string();
    assert!(
        refused.contains("expected another name than the stage's own zkVM"),
        "{refused}"
    );
}

#[test]
fn the_reference_of_pipelines_has_a_good_example_and_names_every_key() {
    const PAGE: &str = include_str!("../../../../docs/pipelines.md");
    let example = PAGE
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let example = example.expect("an example");
    Pipeline::from_toml("docs/pipelines.md", example).unwrap_or_else(|e| unreachable!("{e}"));
    for table in ["", "[source]\n", "[quorum]\n", "[[proof]]\n", "[[proof.stage]]\n"] {
        let place = if table.is_empty() {
            0
        } else {
            example.find(table).expect("the table") + table.len()
        };
        let (before, after) = example.split_at(place);
        let refused = parse(&format!("{before}no_such_key = 1\n{after}")).expect_err("an unknown key");
        // The parser's error lists the keys it knows.
        let known: Vec<String> = refused
            .to_string()
            .split('`')
            .skip(3)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        assert!(!known.is_empty(), "{refused}");
        for key in known {
            assert!(
                PAGE.contains(&format!("`{key}`"))
                    || PAGE.contains(&format!("`[{key}]`"))
                    || PAGE.contains(&format!("`[[{key}]]`"))
                    || key == "stage",
                "{key} in {table}"
            );
        }
    }
}
