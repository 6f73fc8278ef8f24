//! Ranges: their keys in a pipeline file, and their names in subjects.

use push0_domain::{
    BlockHash, BlockRef, StageKey,
    message::StageKind,
    pipeline::{InvalidPipeline, NextStage, Pipeline},
    subject::{self, AttemptKey, Kind},
};
use std::time::Duration;

const GOOD: &str = r#"name = "rollup"
source = { kind = "external" }
[[proof]]
type = "rollup"
zkvm = "mock"
[[proof.stage]]
name = "prove"
kind = "map"
timeout = "1m"
[[proof.stage]]
name = "range"
kind = "range"
every = 100
close_after = "10m"
arity = 4
split_on_failure = true
timeout = "1h"
[[proof.stage]]
name = "wrap"
kind = "map"
timeout = "1m"
"#;

fn parse(text: &str) -> Result<Pipeline, InvalidPipeline> {
    Pipeline::from_toml("bad.toml", text)
}

#[test]
fn a_range_follows_the_stages_of_single_blocks() {
    let pipeline = parse(GOOD).unwrap();
    let proof = &pipeline.proofs[0];
    let [prove, range, wrap] = &proof.stages[..] else {
        panic!("three stages: {proof:?}")
    };
    assert_eq!((range.kind, range.every), (StageKind::Range, Some(100)));
    assert_eq!(range.close_after, Some(Duration::from_secs(600)));
    assert!(range.split_on_failure && !prove.split_on_failure);
    assert_eq!(pipeline.range(), Some(range));
    assert_eq!(proof.next(&prove.name), Some(NextStage::Range(range)));
    assert_eq!(proof.next(&range.name), Some(NextStage::Stage(wrap)));
    // A tree of arity 4 over 100 inputs has 25, 7, 2 and 1 tasks.
    assert_eq!((range.task_count(100), range.task_count(1)), (35, 1));
}

#[test]
fn a_range_that_cannot_be_is_refused_with_its_line_and_the_reason() {
    let other = "[[proof]]\ntype = \"b\"\nzkvm = \"mock\"\n[[proof.stage]]\nname = \"s\"\nkind = \"map\"\ntimeout = \"1s\"\n";
    let bad = [
        ("every = 100\n", "", "expected `every = 100`"),
        ("every = 100", "every = 0", "every = 0: expected at least 1"),
        (
            "every = 100",
            "every = 1025",
            "every = 1025: expected at most 1024",
        ),
        ("close_after = \"10m\"\n", "", "expected `close_after = \"10m\"`"),
        (
            "close_after = \"10m\"",
            "close_after = \"0s\"",
            "expected more than 0",
        ),
        (
            "name = \"prove\"\nkind = \"map\"\n",
            "name = \"prove\"\nkind = \"split\"\n",
            "reads many outputs",
        ),
        (
            "name = \"wrap\"\nkind = \"map\"\n",
            "name = \"wrap\"\nkind = \"range\"\nevery = 2\nclose_after = \"1s\"\n",
            "a proof has at most one",
        ),
        (
            "name = \"wrap\"\nkind = \"map\"\n",
            "name = \"wrap\"\nkind = \"map\"\nsplit_on_failure = true\n",
            "only with kind = \"range\"",
        ),
        (
            "[[proof]]\ntype = \"rollup\"\n",
            &format!("{other}[[proof]]\ntype = \"rollup\"\n"),
            "only in a pipeline of one proof type",
        ),
        (
            "name = \"rollup\"\n",
            "name = \"rollup\"\npolicy = \"deadline\"\ndeadline = \"2h\"\n",
            "not with policy = \"deadline\"",
        ),
        (
            "[[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"1m\"\n",
            "",
            "it needs a stage before it",
        ),
    ];
    for (good, wrong, reason) in bad {
        let text = GOOD.replacen(good, wrong, 1);
        assert_ne!(text, GOOD, "the good file has no `{good}`");
        let error = parse(&text).unwrap_err();
        let named = error.issues.iter().find(|issue| issue.reason.contains(reason));
        let issue = named.unwrap_or_else(|| panic!("`{wrong}` should be refused for `{reason}`:\n{error}"));
        let line = text.lines().nth(issue.line - 1).unwrap_or_default();
        let of_stage = line == "[[proof.stage]]" || line.contains("every") || line.contains("close_after");
        assert!(of_stage, "`{wrong}`: line {} is `{line}`", issue.line);
    }
}

#[test]
fn a_range_is_told_from_every_other_that_ends_with_the_same_block() {
    let block = |number: u64| BlockRef {
        number,
        hash: BlockHash([u8::try_from(number).unwrap(); 32]),
    };
    let key = |first: Option<u64>| StageKey {
        pipeline: "demo".parse().unwrap(),
        block: block(9),
        first: first.map(block),
        proof_type: "main".parse().unwrap(),
        stage: "range".parse().unwrap(),
    };
    let zkvm = "mock".parse().unwrap();
    let of = |first| {
        let stage = key(first);
        let attempt = AttemptKey::of(&zkvm, &stage.task(0).attempt(1));
        assert_eq!(
            (attempt.block.first(), attempt.block.number),
            (*stage.numbers().start(), 9)
        );
        (subject::task(&attempt), stage.to_string())
    };
    assert_eq!(of(Some(9)).0, "push0.v1.task.mock.demo.9-09090909.main.range.0.1");
    assert_eq!(
        of(Some(5)).0,
        "push0.v1.task.mock.demo.9-09090909-5.main.range.0.1"
    );
    assert_ne!(of(Some(5)), of(Some(6)));
    let (text, name) = of(Some(2));
    assert_eq!(name, "demo/9-09090909-8/main/range");
    let read = AttemptKey::parse(&text, Kind::Task).unwrap();
    assert_eq!(read.block, key(Some(2)).block_key());
    assert_eq!((read.block.first(), key(None).numbers()), (2, 9..=9));
}
