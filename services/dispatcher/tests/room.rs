//! Tests of releases while a stream or the blob store is nearly full.

use push0_bus::{Place, Room, Stream};
use push0_dispatcher::decide::{Dispatcher, SourceId};
use push0_domain::{
    BlockHash, BlockRef, Timestamp,
    message::{Lease, ProverState, Role},
    output::Output,
    pipeline::Pipeline,
};
use std::{collections::BTreeMap, sync::Arc};

const NOW: Timestamp = Timestamp(1_000_000_000);
const SCARCE: Room = Room::Scarce(Place::Blobs);

fn pipeline(name: &str, range: &str) -> Arc<Pipeline> {
    let text = format!(
        "name = \"{name}\"\n[source]\nkind = \"external\"\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\nverify = \"off\"\n\
         [[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"9s\"\n{range}"
    );
    Arc::new(Pipeline::from_toml("test.toml", &text).unwrap_or_else(|e| unreachable!("{e}")))
}

/// Returns a dispatcher with a prover of many slots, in which blocks 5 to 9 of each pipeline wait and 5 is emitted next.
fn waiting(pipelines: &[Arc<Pipeline>]) -> Dispatcher {
    let mut dispatcher = Dispatcher::default();
    let mut sequence = 0;
    for pipeline in pipelines {
        dispatcher.recall(&pipeline.name, Output::new(5, BTreeMap::new()));
        for number in 5..=9 {
            sequence += 1;
            let hash = BlockHash([7; 32]);
            dispatcher.block(
                SourceId::Block(sequence),
                BlockRef { number, hash },
                None,
                pipeline,
            );
        }
    }
    let lease = Lease {
        prover: "p".parse().expect("valid"),
        zkvm: "mock".parse().expect("valid"),
        role: Role::Prover,
        incarnation: 1,
        origin: None,
        beat: 1,
        slots: 64,
        ahead: 0,
        state: ProverState::Active,
        held: Vec::new(),
    };
    dispatcher.heard(&lease, NOW);
    dispatcher
}

/// Returns the blocks released now.
fn released(dispatcher: &mut Dispatcher) -> Vec<(String, u64)> {
    let release = || dispatcher.release(NOW);
    let released = std::iter::from_fn(release);
    let mut released: Vec<_> = released
        .map(|release| (release.stage.pipeline.to_string(), release.stage.block.number))
        .collect();
    released.sort();
    released
}

#[test]
fn a_nearly_full_store_lets_only_the_next_block_of_each_pipeline_begin() {
    let mut dispatcher = waiting(&[pipeline("a", ""), pipeline("b", "")]);
    dispatcher.has_room_for_results(SCARCE);
    assert_eq!(released(&mut dispatcher), [("a".into(), 5), ("b".into(), 5)]);
    dispatcher.has_room_for_results(Room::Enough);
    assert_eq!(released(&mut dispatcher).len(), 8);
}

#[test]
fn a_nearly_full_store_lets_all_blocks_of_the_next_range_begin() {
    let range = "[[proof.stage]]\nname = \"fold\"\nkind = \"range\"\nevery = 3\nclose_after = \"10m\"\ntimeout = \"9s\"\n";
    let mut dispatcher = waiting(&[pipeline("a", range)]);
    dispatcher.has_room_for_results(SCARCE);
    let numbers: Vec<u64> = released(&mut dispatcher)
        .into_iter()
        .map(|(_, number)| number)
        .collect();
    assert_eq!(numbers, [5, 6, 7]);
}

#[test]
fn nearly_full_checks_let_nothing_begin() {
    let mut dispatcher = waiting(&[pipeline("a", "")]);
    dispatcher.has_room_for_results(Room::None(Place::Stream(Stream::Checks)));
    assert_eq!(released(&mut dispatcher), []);
}
