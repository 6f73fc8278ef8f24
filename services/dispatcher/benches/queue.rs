//! Cost of adding an entry to the priority queue and of taking the most urgent one, for
//! several queue lengths.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run says why")]

use divan::{AllocProfiler, Bencher};
use push0_dispatcher::queue::{EntryId, Queue};
use push0_domain::{PipelineId, pipeline::Policy, urgency::Urgency};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const WAITING: [u64; 2] = [10, 100_000];
/// An odd number sharing no factor with the counts, so blocks come in a mixed order.
const MIX: u64 = 7_919;

fn main() {
    divan::main();
}

fn urgency(block: u64) -> Urgency {
    Urgency::new(&Policy::OldestFirst, block, None, 0, 1, block)
}

/// Returns a queue of every second block out of twice as many.
fn filled(waiting: u64) -> (Queue, PipelineId) {
    let pipeline: PipelineId = "demo".parse().unwrap();
    let mut queue = Queue::default();
    for n in 0..waiting {
        let block = n * MIX % waiting * 2;
        queue.push(&pipeline, 1, urgency(block), EntryId(block as usize));
    }
    (queue, pipeline)
}

/// An entry is added in the middle and removed again.
#[divan::bench(args = WAITING)]
fn push_and_remove(bencher: Bencher<'_, '_>, waiting: u64) {
    let (mut queue, pipeline) = filled(waiting);
    let mut n = 0;
    bencher.bench_local(move || {
        n += 1;
        let block = n * MIX % waiting * 2 + 1;
        queue.push(&pipeline, 1, urgency(block), EntryId(block as usize));
        queue.remove(&pipeline, urgency(block));
    });
}

/// The most urgent entry is taken, and a new one is added at the end.
#[divan::bench(args = WAITING)]
fn take_the_most_urgent(bencher: Bencher<'_, '_>, waiting: u64) {
    let (mut queue, pipeline) = filled(waiting);
    let mut last = waiting * 2;
    bencher.bench_local(move || {
        let id = queue.peek().unwrap();
        queue.charge(&pipeline);
        queue.remove(&pipeline, urgency(id.0 as u64));
        last += 2;
        queue.push(&pipeline, 1, urgency(last), EntryId(last as usize));
    });
}

/// All entries are added to an empty queue.
#[divan::bench(args = WAITING, sample_count = 10)]
fn fill(waiting: u64) -> Queue {
    filled(waiting).0
}
