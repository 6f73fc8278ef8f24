use push0_domain::{
    BlockHash, BlockRef, Timestamp,
    message::StageKind,
    pipeline::{
        HashRule, InvalidPipeline, NextStage, PROOF_TYPES_MAX, Pipeline, Policy, Position, STAGES_MAX,
        Source, Verify, Witness,
    },
};
use std::time::Duration;

pub(crate) const GOOD: &str = r#"name = "demo"
policy = "oldest-first"
weight = 2
source = { kind = "ethereum", rpc_url = "http://127.0.0.1:8545", start = 5, confirmations = 1, poll = "1s", witness = "block" }

[quorum]
valid = 1
rest = "finish"

[[proof]]
type = "main"
zkvm = "mock"
program_id = "0xabc"
verify = "every-stage"

[[proof.stage]]
name = "split"
kind = "split"
timeout = "10s"

[[proof.stage]]
name = "prove"
kind = "map"
from = "split"
timeout = "1m"
attempts = 5
hedge_after = "30s"

[[proof.stage]]
name = "join"
kind = "join"
from = "prove"
arity = 2
timeout = "1m 30s"

[[proof.stage]]
name = "wrap"
kind = "map"
zkvm = "wrapper"
timeout = "10s"

[[proof]]
type = "spare"
zkvm = "other"

[[proof.stage]]
name = "prove"
kind = "map"
from = "block"
timeout = "1h"
"#;

pub(crate) fn parse(text: &str) -> Result<Pipeline, InvalidPipeline> {
    Pipeline::from_toml("bad.toml", text)
}

#[test]
fn a_good_file_is_read_as_it_is_written() {
    let pipeline = parse(GOOD).unwrap();
    assert_eq!(
        (pipeline.name.as_str(), pipeline.weight, pipeline.quorum),
        ("demo", 2, 1)
    );
    assert_eq!(pipeline.policy, Policy::OldestFirst);
    let zkvms: Vec<String> = pipeline.zkvms().iter().map(ToString::to_string).collect();
    assert_eq!(zkvms, ["mock", "other", "wrapper"]);
    let main = &pipeline.proofs[0];
    assert_eq!(
        (main.verify, pipeline.proofs[1].verify),
        (Verify::EveryStage, Verify::Final)
    );
    let kinds: Vec<StageKind> = main.stages.iter().map(|s| s.kind).collect();
    assert_eq!(
        kinds,
        [StageKind::Split, StageKind::Map, StageKind::Join, StageKind::Map]
    );
    let prove = &main.stages[1];
    assert_eq!((prove.timeout, prove.attempts), (Duration::from_secs(60), 5));
    assert_eq!(prove.hedge_after, Some(Duration::from_secs(30)));
    assert_eq!((main.stages[0].attempts, main.stages[2].arity), (3, Some(2)));
    assert_eq!(main.stages[2].timeout, Duration::from_secs(90));
}

#[test]
fn the_graph_of_a_good_file_is_its_order() {
    let pipeline = parse(GOOD).unwrap();
    let main = &pipeline.proofs[0];
    let names = ["split", "prove", "join", "wrap"].map(|name| name.parse().unwrap());
    for (at, name) in names.iter().enumerate() {
        let next = main.next(name).unwrap();
        match names.get(at + 1) {
            Some(after) => assert!(matches!(next, NextStage::Stage(stage) if stage.name == *after)),
            None => assert_eq!(next, NextStage::Proof),
        }
        assert_eq!(main.stages_left(name) as usize, 3 - at);
    }
    assert_eq!(main.next(&"none".parse().unwrap()), None);
    assert_eq!([0, 7].map(|inputs| main.stages[1].task_count(inputs)), [0, 7]);
    assert_eq!(
        [1, 7, 8].map(|inputs| main.stages[2].task_count(inputs)),
        [1, 4 + 2 + 1, 4 + 2 + 1]
    );
    let spare = &pipeline.proofs[1];
    assert!(spare.is_checked(&"prove".parse().unwrap()));
}

#[test]
fn what_a_file_leaves_out_has_a_default() {
    let least = "name = \"a\"\nsource = { kind = \"external\" }\n[[proof]]\ntype = \"t\"\nzkvm = \"z\"\n\
                 [[proof.stage]]\nname = \"s\"\nkind = \"map\"\ntimeout = \"1s\"\n";
    let pipeline = parse(least).unwrap();
    assert_eq!(
        (pipeline.weight, pipeline.quorum, pipeline.source),
        (1, 1, Source::External)
    );
    for (kind, extra) in [("http", ""), ("file", ", path = \"blocks\"")] {
        let source = format!("{{ kind = \"{kind}\"{extra} }}");
        parse(&least.replace("{ kind = \"external\" }", &source)).unwrap();
    }
    let realtime = least.replace("source", "policy = \"deadline\"\ndeadline = \"12s\"\nsource");
    let pipeline = parse(&realtime).unwrap();
    assert_eq!(pipeline.deadline_at(Timestamp(5)), Some(Timestamp(12_000_005)));
}

#[test]
fn a_source_names_one_node_or_several_and_how_far_to_trust_them() {
    let source = |from: &str, to: &str| match parse(&GOOD.replacen(from, to, 1)).unwrap().source {
        Source::Ethereum(source) => source,
        other => unreachable!("{other:?}"),
    };
    let plain = source("", "");
    assert_eq!(plain.rpc_urls, ["http://127.0.0.1:8545"]);
    assert_eq!(
        (plain.depth, plain.answer_max_mib, plain.hash),
        (64, 32, HashRule::Header)
    );
    let seconds = |duration: Duration| duration.as_secs();
    assert_eq!((seconds(plain.timeout), seconds(plain.stale_after)), (5, 120));
    let two = source("\"http://127.0.0.1:8545\"", "[\"http://a\", \"https://b\"]");
    assert_eq!(two.rpc_urls, ["http://a", "https://b"]);
    // Where the header proves nothing, the whole block is the witness.
    let node = source("witness = \"block\"", "hash = \"node\"");
    assert_eq!((node.hash, node.witness), (HashRule::Node, Witness::Block));
    let header = source(", witness = \"block\"", "");
    assert_eq!(header.witness, Witness::Header);
}

#[test]
fn the_pipelines_that_are_shipped_are_good() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/pipelines");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        Pipeline::from_toml(&path.display().to_string(), &text).unwrap_or_else(|e| panic!("{e}"));
        read += 1;
    }
    assert!(read > 0, "{folder} is empty");
}

/// Mistakes: the text to replace in the good file, its replacement, the text whose line must be named,
/// and the reason.
const BAD: &[(&str, &str, &str, &str)] = &[
    (
        "name = \"demo\"",
        "name = \"De mo\"",
        "name = \"De mo\"",
        "`De mo` is not a pipeline name",
    ),
    ("name = \"demo\"", "name = 5", "name = 5", "expected a string"),
    (
        "name = \"demo\"",
        "name = \"demo\"\ncolour = 1",
        "colour",
        "unknown field `colour`",
    ),
    (
        "weight = 2",
        "weight = 0",
        "weight = 0",
        "weight = 0: expected at least 1",
    ),
    ("weight = 2", "weight = -1", "weight = -1", "u32"),
    ("weight = 2", "weight = ", "weight = ", ""),
    (
        "policy = \"oldest-first\"",
        "policy = \"fifo\"",
        "policy = \"fifo\"",
        "expected \"oldest-first\" or \"deadline\"",
    ),
    (
        "policy = \"oldest-first\"",
        "policy = \"deadline\"",
        "policy = \"deadline\"",
        "expected `deadline = \"10s\"`",
    ),
    (
        "weight = 2",
        "deadline = \"5s\"",
        "deadline = \"5s\"",
        "deadline: only with policy",
    ),
    (
        "policy = \"oldest-first\"",
        "policy = \"deadline\"\ndeadline = \"0s\"",
        "deadline = \"0s\"",
        "expected more than 0",
    ),
    (
        "policy = \"oldest-first\"",
        "policy = \"deadline\"\ndeadline = \"30s\"",
        "name = \"prove\"",
        "after the deadline",
    ),
    (
        "policy = \"oldest-first\"",
        "policy = \"deadline\"\ndeadline = \"59s\"",
        "name = \"prove\"",
        "longer than the deadline",
    ),
    ("http://127", "ftp://127", "source", "http:// or https://"),
    (
        "start = 5",
        "start = \"first\"",
        "source",
        "source.start = \"first\"",
    ),
    (
        "start = 5",
        "start = 9007199254740993",
        "source",
        "source.start = 9007199254740993: expected at most 9007199254740992",
    ),
    ("poll = \"1s\"", "poll = \"1ms\"", "source", "source.poll"),
    (
        "poll = \"1s\"",
        "stale_after = \"0s\"",
        "source",
        "source.stale_after = \"0s\": expected a duration from \"1s\"",
    ),
    (
        "poll = \"1s\"",
        "timeout = \"1ms\"",
        "source",
        "source.timeout = \"1ms\": expected a duration from \"100ms\"",
    ),
    (
        "poll = \"1s\"",
        "answer_max_mib = 1000",
        "source",
        "source.answer_max_mib = 1000: expected 1 to 256",
    ),
    (
        "poll = \"1s\"",
        "depth = 0",
        "source",
        "source.depth = 0: expected 1 to 4096",
    ),
    (
        "witness = \"block\"",
        "witness = \"header\", hash = \"node\"",
        "source",
        "source.witness = \"header\" with source.hash = \"node\"",
    ),
    (
        "rpc_url = \"http://127.0.0.1:8545\"",
        "rpc_url = []",
        "source",
        "source.rpc_url: 0 URLs: expected 1 to 8",
    ),
    (
        "rpc_url = \"http://127.0.0.1:8545\"",
        "rpc_url = [\"http://a\", \"ws://b\"]",
        "source",
        "expected an http:// or https:// URL",
    ),
    (
        "kind = \"ethereum\"",
        "kind = \"bitcoin\"",
        "source",
        "unknown variant `bitcoin`",
    ),
    (
        "witness = \"block\"",
        "witness = \"state\"",
        "source",
        "unknown variant `state`",
    ),
    (
        "valid = 1",
        "valid = 0",
        "valid = 0",
        "quorum.valid = 0: expected at least 1",
    ),
    ("valid = 1", "valid = 3", "valid = 3", "there are only 2 proofs"),
    (
        "rest = \"finish\"",
        "rest = \"forget\"",
        "rest = \"forget\"",
        "unknown variant `forget`",
    ),
    (
        "type = \"main\"",
        "type = \"Main\"",
        "type = \"Main\"",
        "`Main` is not a proof type",
    ),
    (
        "type = \"spare\"",
        "type = \"main\"",
        "type = \"main\"\nzkvm = \"other\"",
        "proof type `main` is defined twice",
    ),
    (
        "zkvm = \"mock\"",
        "zkvm = \"sp.1\"",
        "zkvm = \"sp.1\"",
        "`sp.1` is not a zkVM name",
    ),
    ("zkvm = \"mock\"\n", "", "type = \"main\"", "missing field `zkvm`"),
    (
        "verify = \"every-stage\"",
        "verify = \"never\"",
        "verify = \"never\"",
        "unknown variant `never`",
    ),
    (
        "name = \"split\"\nkind = \"split\"",
        "name = \"split\"\nkind = \"fork\"",
        "kind = \"fork\"",
        "unknown variant `fork`",
    ),
    (
        "timeout = \"10s\"",
        "timeout = \"soon\"",
        "timeout = \"soon\"",
        "expected a duration such as \"10s\"",
    ),
    (
        "timeout = \"10s\"",
        "timeout = \"0s\"",
        "timeout = \"0s\"",
        "expected more than 0 and at most 24h",
    ),
    (
        "timeout = \"1h\"",
        "timeout = \"25h\"",
        "timeout = \"25h\"",
        "expected more than 0 and at most 24h",
    ),
    (
        "timeout = \"1h\"\n",
        "",
        "name = \"prove\"\nkind = \"map\"\nfrom = \"block\"",
        "missing field `timeout`",
    ),
    (
        "attempts = 5",
        "attempts = 0",
        "attempts = 0",
        "attempts = 0: expected at least 1",
    ),
    (
        "hedge_after = \"30s\"",
        "hedge_after = \"60s\"",
        "name = \"prove\"",
        "hedge_after: expected less than timeout",
    ),
    (
        "arity = 2",
        "arity = 1",
        "arity = 1",
        "arity = 1: expected at least 2",
    ),
    (
        "from = \"split\"",
        "from = \"split\"\narity = 2",
        "name = \"prove\"",
        "arity: only with kind = \"join\" or \"range\"",
    ),
    (
        "from = \"split\"",
        "from = \"split\"\nevery = 2",
        "name = \"prove\"",
        "only with kind = \"range\"",
    ),
    (
        "from = \"split\"",
        "from = \"join\"",
        "from = \"join\"",
        "a cycle",
    ),
    (
        "from = \"split\"",
        "from = \"prove\"",
        "from = \"prove\"",
        "a cycle",
    ),
    (
        "from = \"prove\"",
        "from = \"split\"",
        "from = \"split\"\narity",
        "expected `prove`, the stage before it",
    ),
    (
        "from = \"prove\"",
        "from = \"nowhere\"",
        "from = \"nowhere\"",
        "no stage of this proof",
    ),
    (
        "from = \"block\"",
        "from = \"wrap\"",
        "from = \"wrap\"",
        "no stage of this proof",
    ),
    (
        "name = \"wrap\"",
        "name = \"split\"",
        "name = \"split\"\nkind = \"map\"",
        "defined twice",
    ),
    (
        "name = \"wrap\"",
        "name = \"block\"",
        "name = \"block\"",
        "reserved name",
    ),
    (
        "kind = \"split\"",
        "kind = \"map\"",
        "name = \"join\"",
        "joins one output",
    ),
    (
        "kind = \"join\"\nfrom = \"prove\"\narity = 2",
        "kind = \"map\"",
        "type = \"main\"",
        "the last stage has many outputs",
    ),
    (
        "kind = \"map\"\nfrom = \"split\"",
        "kind = \"split\"",
        "name = \"prove\"",
        "reads many outputs",
    ),
];

#[test]
fn every_bad_file_is_refused_with_its_line_and_the_reason() {
    let mut wrongly = String::new();
    for (good, wrong, place, reason) in BAD {
        assert!(GOOD.contains(good), "the good file has no `{good}`");
        let text = GOOD.replacen(good, wrong, 1);
        let said = match parse(&text) {
            Ok(_) => "accepted".into(),
            Err(error) => error.to_string(),
        };
        let at = text
            .find(place)
            .unwrap_or_else(|| panic!("no `{place}` with {wrong}"));
        // For a table, the line of its header is accepted as well as the line of its first key.
        let line = text[..at].matches('\n').count() + 1;
        let named = [line, line - usize::from(line > 1)].map(|line| format!("bad.toml:{line}: "));
        let found = said
            .lines()
            .any(|issue| named.iter().any(|place| issue.starts_with(place)) && issue.contains(reason));
        if !found {
            wrongly += &format!("`{wrong}` should be refused at line {line} for `{reason}`:\n{said}\n");
        }
    }
    assert!(wrongly.is_empty(), "{wrongly}");
    assert!(BAD.len() >= 20);
}

#[test]
fn all_that_is_wrong_is_said_at_once_in_the_order_of_the_file() {
    let text = GOOD
        .replace("weight = 2", "weight = 0")
        .replace("attempts = 5", "attempts = 0");
    let error = parse(&text.replace("valid = 1", "valid = 9")).unwrap_err();
    let lines: Vec<usize> = error.issues.iter().map(|issue| issue.line).collect();
    assert_eq!(lines.len(), 3, "{error}");
    assert!(lines.is_sorted());
    assert_eq!(error.to_string().lines().count(), 3);
}

#[test]
fn too_many_or_no_proofs_and_stages_are_refused() {
    let proof = |name: &str, stages: usize| {
        let stage = |at| format!("[[proof.stage]]\nname = \"s{at}\"\nkind = \"map\"\ntimeout = \"1s\"\n");
        let stages: String = (0..stages).map(stage).collect();
        format!("[[proof]]\ntype = \"{name}\"\nzkvm = \"z\"\n{stages}")
    };
    let file = |proofs: usize, stages: usize| {
        let proofs: String = (0..proofs).map(|at| proof(&format!("t{at}"), stages)).collect();
        format!("name = \"a\"\nsource = {{ kind = \"external\" }}\n{proofs}")
    };
    assert!(parse(&file(PROOF_TYPES_MAX, STAGES_MAX)).is_ok());
    for (text, line, reason) in [
        (file(0, 0), 1, "0 [[proof]] tables: expected 1 to 8"),
        (
            file(PROOF_TYPES_MAX + 1, 1),
            1,
            "9 [[proof]] tables: expected 1 to 8",
        ),
        (file(1, 0), 3, "0 [[proof.stage]] tables: expected 1 to 16"),
        (
            file(1, STAGES_MAX + 1),
            3,
            "17 [[proof.stage]] tables: expected 1 to 16",
        ),
    ] {
        let said = parse(&text).unwrap_err().to_string();
        assert!(said.contains(&format!("bad.toml:{line}: {reason}")), "{said}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_its_line() {
    for (text, line) in [
        ("", 1),
        ("name = \"a\"\n= 5\n", 2),
        ("name = \"a\"\nname = \"b\"\n", 2),
        ("\n\n[[", 3),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.issues[0].line, line, "{text:?}: {error}");
    }
}

/// A stored definition is not checked as a file is. A sum that panics would end a service for all pipelines.
#[test]
fn the_durations_of_a_damaged_definition_have_a_sum() {
    let mut pipeline = parse(GOOD).expect("a good pipeline");
    let proof = &mut pipeline.proofs[0];
    for stage in &mut proof.stages {
        stage.fastest = Duration::MAX;
    }
    assert!(proof.stages.len() > 2);
    assert_eq!(proof.fastest_after(&proof.stages[0].name), Duration::MAX);
}

#[test]
fn after_the_largest_number_comes_no_small_one() {
    let position = Position {
        first: Some(3),
        block: Some(BlockRef {
            number: u64::MAX,
            hash: BlockHash::default(),
        }),
    };
    assert_eq!(position.next(), Some(u64::MAX));
}

proptest::proptest! {
    #[test]
    fn random_text_never_panics_the_reader(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    /// Changes one character of a good file, or cuts the file short.
    #[test]
    fn a_damaged_file_is_read_or_refused_with_a_line(
        at in proptest::prelude::any::<proptest::sample::Index>(),
        with in "\\PC|\n",
        cut in proptest::bool::ANY,
    ) {
        let at = at.index(GOOD.len());
        let rest = if cut { "" } else { &GOOD[at + 1..] };
        let text = format!("{}{with}{rest}", &GOOD[..at]);
        if let Err(error) = parse(&text) {
            let lines = text.matches('\n').count() + 1;
            proptest::prop_assert!(!error.issues.is_empty());
            for issue in &error.issues {
                proptest::prop_assert!((1..=lines).contains(&issue.line) && !issue.reason.is_empty());
            }
        }
    }
}
