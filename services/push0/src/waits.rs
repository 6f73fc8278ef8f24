//! The reason why a block waits, in one sentence, and how far its stages are. Pure.

use crate::table;
use push0_domain::message::StageKind;
use push0_domain::pipeline::{ProofSpec, Stage, tree_levels};
use std::time::Duration;

/// An attempt that a prover or verifier holds.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) prover: String,
    pub(crate) task: String,
    pub(crate) attempt: u32,
    pub(crate) running_ms: Option<u64>,
    pub(crate) progress_permille: Option<u16>,
    /// Since when its process has not been heard, if that is longer than a heartbeat may be late.
    pub(crate) silent_ms: Option<u64>,
}

/// The facts about a block without a record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) number: u64,
    /// The pipeline, if neither its ingester nor any message tells of the block.
    pub(crate) unknown_to: Option<String>,
    /// The number that is to be emitted next.
    pub(crate) next: Option<u64>,
    /// Whether the block's own message waits for the dispatcher.
    pub(crate) queued: bool,
    pub(crate) held: Vec<Held>,
    /// Stages of the block's messages by kind, as `proof.stage`.
    pub(crate) stages: Vec<String>,
    pub(crate) tasks: Vec<String>,
    pub(crate) checks: Vec<String>,
    pub(crate) results: Vec<String>,
    /// Whether the results are those of a range that is not formed yet, or of one with other parts missing.
    pub(crate) is_in_range: bool,
    /// Sentences about held queues.
    pub(crate) holds: Vec<String>,
    /// The zkVMs whose provers the block needs next, as far as none is heard.
    pub(crate) unserved: Vec<String>,
    /// The zkVMs whose verifiers the block needs next, as far as none is heard.
    pub(crate) unverified: Vec<String>,
    /// What says that work waits for room.
    pub(crate) full: Option<String>,
    /// The revision of the pipeline with which the block was ingested, if it is not the current one.
    pub(crate) outdated: Option<u32>,
    /// The pipeline, if its blocks can be taken from the node again, with the current revision.
    pub(crate) reset_of: Option<String>,
    /// The number of failed attempts, and how the newest of them failed.
    pub(crate) failures: usize,
    pub(crate) last_failure: Option<String>,
    /// Where the output goes on, if the record of the block is of a chain that was replaced.
    pub(crate) replaced_from: Option<u64>,
}

/// Returns the reason why a block without a record waits, and how its newest attempt failed, if one did.
pub(crate) fn sentence(facts: &Facts) -> String {
    let reason = reason(facts);
    match (facts.failures, &facts.last_failure) {
        (1, Some(last)) => format!("{reason} 1 attempt failed: {last}"),
        (count, Some(last)) => format!("{reason} {count} attempts failed, the last one so: {last}"),
        (_, None) => reason,
    }
}

fn reason(facts: &Facts) -> String {
    let number = facts.number;
    // A silent process may run its attempt no more: another attempt waits already, or is asked for within seconds.
    let (heard, silent): (Vec<&Held>, Vec<&Held>) =
        facts.held.iter().partition(|held| held.silent_ms.is_none());
    let mut running: Vec<&Held> = heard
        .iter()
        .copied()
        .filter(|held| held.running_ms.is_some())
        .collect();
    running.sort_by_key(|held| std::cmp::Reverse(held.running_ms));
    if let [longest, others @ ..] = &running[..] {
        return format!(
            "Block {number} waits for {}{}.",
            attempt(longest),
            and_more(others.len())
        );
    }
    if let Some(held) = heard.first() {
        return format!(
            "Block {number} waits: {} holds {}, and it waits for a slot or a transfer.",
            held.prover, held.task
        );
    }
    if let Some(waits) = unclaimed(facts) {
        return waits;
    }
    if let Some(held) = silent.first() {
        let silence = table::span(Duration::from_millis(held.silent_ms.unwrap_or_default()));
        return format!(
            "Block {number} waits for attempt {} of {} on {}, which has not been heard for {silence}: another attempt is \
             asked for.",
            held.attempt, held.task, held.prover
        );
    }
    if let Some(pipeline) = &facts.unknown_to {
        return format!(
            "Block {number} is not known to {pipeline}: the ingester never saw it, or its facts have expired. `push0 \
             status` shows how far the ingester is."
        );
    }
    match (facts.results.first(), facts.next) {
        (Some(_), _) if facts.is_in_range => {
            format!("Block {number} is done, and waits for the other blocks of its range.")
        }
        (Some(_), Some(next)) if next < number => format!(
            "Block {number} is done, and waits for block {next}, since records follow the chain's order (`push0 block \
             {next}` says what that one waits for)."
        ),
        (Some(stage), _) => {
            format!("Block {number} waits for the collector to take the results of {stage} further.")
        }
        (None, _) if facts.replaced_from.is_some() => format!(
            "Block {number} was replaced, and no successor of this number was announced yet: the output goes on at block \
             {}.",
            facts.replaced_from.unwrap_or_default()
        ),
        (None, _) => format!(
            "No message tells of block {number}: the collector is storing its record, or its range is being formed. If \
             this lasts, look at the first line of `push0 status`."
        ),
    }
}

/// Returns what a block waits for whose work no process has taken yet; `None` if there is no such work.
fn unclaimed(facts: &Facts) -> Option<String> {
    let number = facts.number;
    let why = match (&facts.holds[..], &facts.full) {
        ([], None) => String::new(),
        ([], Some(full)) => format!(": {full}"),
        ([hold, ..], _) => format!(": {hold}"),
    };
    let outdated = facts.outdated.map_or(String::new(), |revision| {
        let reset = facts.reset_of.as_ref().map_or(String::new(), |pipeline| {
            format!(
                ", or have the blocks from {number} on proved with the current revision by `push0 pipeline reset {pipeline} \
                 --from {number}`"
            )
        });
        format!(
            "{reset}, or give the block up by `push0 cancel {number} --note TEXT`: it was ingested with revision {revision} of \
             the pipeline, which is not the current one"
        )
    });
    let unheard = |role, zkvm| {
        format!(
            "Block {number} waits for a {role} of zkVM {zkvm}, and none is heard: start one (`push0 provers` lists those \
             heard){outdated}."
        )
    };
    if let Some(zkvm) = facts.unverified.first() {
        return Some(unheard("verifier", zkvm));
    }
    if let Some(stage) = facts.checks.first() {
        return Some(format!(
            "Block {number} waits for a verifier: {stage} is completed, and no verifier has taken it."
        ));
    }
    if let Some(zkvm) = facts.unserved.first() {
        return Some(unheard("prover", zkvm));
    }
    if let Some(stage) = facts.tasks.first() {
        return Some(format!(
            "Block {number} waits for a free prover for {stage}{why}."
        ));
    }
    if let Some(stage) = facts.stages.first() {
        let pause = if facts.failures > 0 {
            "its pause after a failure lasts, "
        } else {
            ""
        };
        return Some(format!(
            "Block {number} waits for the dispatcher to release {stage}: {pause}no prover is free, or more urgent work \
             goes first{why}."
        ));
    }
    facts.queued.then(|| {
        format!(
            "Block {number} waits for the dispatcher to release its first tasks: no prover is free, more urgent work \
             goes first, or the block is too far ahead of the output{why}."
        )
    })
}

fn attempt(held: &Held) -> String {
    let ran = table::span(Duration::from_millis(held.running_ms.unwrap_or_default()));
    let progress = held
        .progress_permille
        .map_or(String::new(), |permille| format!(", {} % done", permille / 10));
    format!(
        "attempt {} of {}, which runs on {} for {ran}{progress}",
        held.attempt, held.task, held.prover
    )
}

fn and_more(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => ", and for 1 more attempt".to_owned(),
        count => format!(", and for {count} more attempts"),
    }
}

/// How far one stage is that has messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) stage: String,
    /// Number of tasks of the stage, all levels of a tree included.
    pub(crate) of: u32,
    /// Indexes with a stored result.
    pub(crate) done: Vec<u32>,
    /// The highest index in any message.
    pub(crate) highest: u32,
}

/// Returns how far the stages of a proof are, such as `prove 99/99, aggregate 16/34, wrap 0/1`. `blocks` is the number of
/// blocks of the range.
pub(crate) fn progress(spec: &ProofSpec, open: &Open, blocks: u32) -> Option<String> {
    let at = spec
        .stages
        .iter()
        .position(|stage| stage.name.as_str() == open.stage)?;
    let mut parts = Vec::new();
    let mut inputs = None;
    for (place, stage) in spec.stages.iter().enumerate() {
        let is_in_range = stage.kind == StageKind::Range;
        let name = &stage.name;
        if place < at {
            // The stages before the range are those of its blocks, each of one task unless it is cut.
            parts.push(match blocks > 1 && stage.kind == StageKind::Map {
                true => format!("{name} {blocks}/{blocks}"),
                false => format!("{name} done"),
            });
        } else if place == at {
            parts.push(format!("{name} {}/{}", done(stage, open), open.of));
            inputs = outputs(stage, open.of);
        } else {
            let inputs_here = if is_in_range { Some(blocks) } else { inputs };
            let of = inputs_here.map(|inputs| stage.task_count(inputs));
            parts.push(of.map_or(format!("{name} 0/?"), |of| format!("{name} 0/{of}")));
            inputs = of.and_then(|of| outputs(stage, of));
        }
    }
    Some(parts.join(", "))
}

/// Returns how many outputs a stage of so many tasks hands on; `None` if they follow from the work itself.
fn outputs(stage: &Stage, of: u32) -> Option<u32> {
    match stage.kind {
        StageKind::Map => Some(of),
        StageKind::Split => None,
        StageKind::Join | StageKind::Range => Some(1),
    }
}

/// Returns how many tasks are done: in a tree, all below the open level, and those with a result in the level.
fn done(stage: &Stage, open: &Open) -> u32 {
    let start = match stage.arity {
        Some(arity) => level_start(arity, open.of, open.highest),
        None => 0,
    };
    let results = open.done.iter().filter(|index| **index >= start).count();
    start
        .saturating_add(u32::try_from(results).unwrap_or(u32::MAX))
        .min(open.of)
}

/// Returns the index of the first task in the level of `index`, in a tree of `of` tasks.
fn level_start(arity: u32, of: u32, index: u32) -> u32 {
    let tasks = |inputs: u32| tree_levels(inputs, arity).iter().sum::<u32>();
    // A tree of more inputs has no fewer tasks, so the inputs are found by bisection.
    let (mut low, mut high) = (1, of.saturating_mul(arity).max(1));
    while low < high {
        let middle = low + (high - low) / 2;
        if tasks(middle) < of {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let mut start = 0;
    for width in tree_levels(low, arity) {
        if index < start + width {
            break;
        }
        start += width;
    }
    start.min(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(running_ms: Option<u64>) -> Held {
        Held {
            prover: "miden-1".into(),
            task: "demo/7/main/prove/0".into(),
            attempt: 2,
            running_ms,
            progress_permille: Some(405),
            silent_ms: None,
        }
    }

    fn some(stage: &str) -> Vec<String> {
        vec![stage.to_owned()]
    }

    #[test]
    fn a_sentence_names_what_the_block_waits_for() {
        let of = |facts: Facts| sentence(&Facts { number: 7, ..facts });
        let running = Facts {
            held: vec![held(Some(100)), held(Some(3_000)), held(None)],
            ..Facts::default()
        };
        assert_eq!(
            of(running),
            "Block 7 waits for attempt 2 of demo/7/main/prove/0, which runs on miden-1 for 3.0 s, 40 % done, and for 1 \
             more attempt."
        );
        let slot = of(Facts {
            held: vec![held(None)],
            ..Facts::default()
        });
        assert!(slot.contains("miden-1 holds"), "{slot}");
        let check = of(Facts {
            checks: some("main.prove"),
            ..Facts::default()
        });
        assert!(check.contains("waits for a verifier"), "{check}");
        let held_queue = of(Facts {
            tasks: some("main.prove"),
            holds: some("the queue of zkVM miden is held"),
            ..Facts::default()
        });
        assert_eq!(
            held_queue,
            "Block 7 waits for a free prover for main.prove: the queue of zkVM miden is held."
        );
        for (unserved, said) in [(true, "a prover of zkVM vm"), (false, "a verifier of zkVM vm")] {
            let (of_provers, of_verifiers) = if unserved {
                (some("vm"), vec![])
            } else {
                (vec![], some("vm"))
            };
            let alone = of(Facts {
                unserved: of_provers,
                unverified: of_verifiers,
                stages: some("main.prove"),
                ..Facts::default()
            });
            assert!(alone.contains(said) && alone.contains("none is heard"), "{alone}");
        }
        let full = of(Facts {
            stages: some("main.prove"),
            full: Some("PUSH0_CHECKS is 90 % full".into()),
            ..Facts::default()
        });
        assert!(full.ends_with("first: PUSH0_CHECKS is 90 % full."), "{full}");
        let order = of(Facts {
            results: some("main.prove"),
            next: Some(5),
            ..Facts::default()
        });
        assert!(
            order.contains("waits for block 5, since records follow"),
            "{order}"
        );
        assert!(
            of(Facts {
                queued: true,
                ..Facts::default()
            })
            .contains("its first tasks")
        );
        assert!(of(Facts::default()).starts_with("No message tells"));
        let unknown = of(Facts {
            unknown_to: Some("demo".into()),
            ..Facts::default()
        });
        assert!(unknown.starts_with("Block 7 is not known to demo"), "{unknown}");
    }

    #[test]
    fn a_silent_prover_is_not_what_a_block_waits_for_while_other_work_waits() {
        let silent = || Held {
            silent_ms: Some(37_000),
            ..held(Some(869))
        };
        let unserved = sentence(&Facts {
            number: 7,
            held: vec![silent()],
            stages: some("main.prove"),
            unserved: some("miden"),
            ..Facts::default()
        });
        assert!(
            unserved.contains("a prover of zkVM miden, and none is heard"),
            "{unserved}"
        );
        let alone = sentence(&Facts {
            number: 7,
            held: vec![silent()],
            ..Facts::default()
        });
        assert!(
            alone.contains("on miden-1, which has not been heard for 37.0 s"),
            "{alone}"
        );
        let beside = sentence(&Facts {
            number: 7,
            held: vec![silent(), held(Some(100))],
            ..Facts::default()
        });
        assert!(beside.contains("which runs on miden-1 for 100 ms"), "{beside}");
    }

    #[test]
    fn failures_revisions_and_replaced_records_are_told() {
        let failed = sentence(&Facts {
            number: 7,
            stages: some("main.prove"),
            failures: 6,
            last_failure: Some("retryable by my-1: out of luck".into()),
            ..Facts::default()
        });
        assert_eq!(
            failed,
            "Block 7 waits for the dispatcher to release main.prove: its pause after a failure lasts, no prover is free, or \
             more urgent work goes first. 6 attempts failed, the last one so: retryable by my-1: out of luck"
        );
        let outdated = sentence(&Facts {
            number: 7,
            queued: true,
            unserved: some("your"),
            outdated: Some(2),
            ..Facts::default()
        });
        assert!(
            outdated.contains("`push0 cancel 7 --note TEXT`: it was ingested with revision 2"),
            "{outdated}"
        );
        assert!(!outdated.contains("reset"), "{outdated}");
        let of_a_node = sentence(&Facts {
            number: 7,
            queued: true,
            unserved: some("your"),
            outdated: Some(2),
            reset_of: Some("l1".into()),
            ..Facts::default()
        });
        assert!(
            of_a_node.contains("`push0 pipeline reset l1 --from 7`, or give the block up"),
            "{of_a_node}"
        );
        let replaced = sentence(&Facts {
            number: 7,
            replaced_from: Some(3),
            ..Facts::default()
        });
        assert!(
            replaced.starts_with("Block 7 was replaced") && replaced.ends_with("goes on at block 3."),
            "{replaced}"
        );
    }

    #[test]
    fn stages_tell_how_far_they_are() {
        let text = r#"
            name = "roll"
            source = { kind = "external" }
            [[proof]]
            type = "main"
            zkvm = "mock"
            [[proof.stage]]
            name = "prove"
            kind = "map"
            timeout = "1s"
            [[proof.stage]]
            name = "aggregate"
            kind = "range"
            every = 99
            close_after = "1m"
            arity = 4
            timeout = "1s"
            [[proof.stage]]
            name = "wrap"
            kind = "map"
            timeout = "1s"
        "#;
        let pipeline = push0_domain::pipeline::Pipeline::from_toml("roll.toml", text).expect("a definition");
        let spec = &pipeline.proofs[0];
        // 99 leaves by 4: 25, 7, 2 and 1 tasks.
        let open = |done: Vec<u32>, highest| Open {
            stage: "aggregate".into(),
            of: 35,
            done,
            highest,
        };
        let of = |open: &Open| progress(spec, open, 99).expect("a stage of the proof");
        assert_eq!(of(&open(vec![0, 1], 24)), "prove 99/99, aggregate 2/35, wrap 0/1");
        assert_eq!(
            of(&open(vec![3, 25, 26], 31)),
            "prove 99/99, aggregate 27/35, wrap 0/1"
        );
        let wrap = Open {
            stage: "wrap".into(),
            of: 1,
            done: vec![],
            highest: 0,
        };
        assert_eq!(of(&wrap), "prove 99/99, aggregate done, wrap 0/1");
        assert_eq!(
            progress(
                spec,
                &Open {
                    stage: "other".into(),
                    ..wrap
                },
                99
            ),
            None
        );
    }
}
