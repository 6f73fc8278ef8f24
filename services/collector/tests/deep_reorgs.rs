//! Reorgs below the emitted blocks that a collector remembers.

use push0_collector::{decide::Collector, state::Handle};
use push0_domain::{
    Announcement, BlockHash, PipelineId,
    message::{BlockEnded, EndReason},
    output::{DEPTH, Emitted},
};
use std::collections::BTreeMap;

/// Number of the oldest remembered block; block `n` was announced at position `10 n`.
const OLDEST: u64 = 137;
const NEXT: u64 = OLDEST + DEPTH as u64;

fn collector(emitted: bool) -> Collector {
    let emitted = (OLDEST..NEXT).filter(|_| emitted).map(|number| {
        let record = Emitted {
            hash: BlockHash([1; 32]),
            announcement: Announcement(10 * number),
            covered_to: number,
        };
        (number, record)
    });
    let name = PipelineId::new("demo").expect("a name");
    Collector::new(name, NEXT, emitted.collect::<BTreeMap<_, _>>())
}

/// Returns the number to emit next after a reorg of these numbers, announced at a position.
fn next_after(mut core: Collector, first: u64, before: u64, hashes: Vec<BlockHash>) -> u64 {
    let ended = BlockEnded {
        pipeline: PipelineId::new("demo").expect("a name"),
        first,
        last: NEXT - 1,
        hashes,
        before: Announcement(before),
        reason: EndReason::Reorged,
    };
    core.end(Handle(1), ended);
    core.next()
}

#[test]
fn the_output_goes_back_to_the_first_replaced_block_however_deep_it_lies() {
    let all = || vec![BlockHash([1; 32]); 300];
    for first in [0, 10, OLDEST - 1, OLDEST, OLDEST + 1, NEXT - 1] {
        assert_eq!(next_after(collector(true), first, 10 * NEXT, all()), first);
        assert_eq!(next_after(collector(true), first, 10 * NEXT, Vec::new()), first);
    }
}

#[test]
fn a_deep_reorg_that_is_delivered_again_moves_nothing_once_its_replacements_are_emitted() {
    // All remembered blocks were announced after the reorg.
    assert_eq!(next_after(collector(true), 10, 10 * OLDEST, Vec::new()), NEXT);
}

#[test]
fn a_pipeline_without_records_may_begin_lower_if_an_operator_says_so() {
    assert_eq!(next_after(collector(false), 3, 1, Vec::new()), 3);
    assert_eq!(next_after(collector(false), 3, 1, vec![BlockHash([1; 32])]), NEXT);
}
