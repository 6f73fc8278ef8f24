use proptest::prelude::*;
use push0_domain::{Timestamp, pipeline::Policy, urgency::Urgency};
use std::{cmp::Ordering, collections::BTreeMap, time::Duration};

/// The arguments of an urgency, except its policy.
#[derive(Clone, Copy, Debug)]
struct Entry {
    block: u64,
    deadline_at: Option<u64>,
    stages_left: u32,
    attempt: u32,
    age: u64,
}

const DEADLINE: Policy = Policy::Deadline {
    within: Duration::from_secs(12),
};

fn urgency(policy: &Policy, e: Entry) -> Urgency {
    Urgency::new(
        policy,
        e.block,
        e.deadline_at.map(Timestamp),
        e.stages_left,
        e.attempt,
        e.age,
    )
}

/// The values are few: fields are often equal, and the next field decides.
fn entry() -> impl Strategy<Value = Entry> {
    let deadline = prop::option::of(0u64..4);
    (
        0u64..4,
        deadline,
        0u32..4,
        prop_oneof![0u32..4, Just(u32::MAX)],
        0u64..4,
    )
        .prop_map(|(block, deadline_at, stages_left, attempt, age)| Entry {
            block,
            deadline_at,
            stages_left,
            attempt,
            age,
        })
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::OldestFirst), Just(DEADLINE)]
}

proptest! {
    #[test]
    fn urgency_is_a_total_order(policy in policy(), a in entry(), b in entry(), c in entry()) {
        let [a, b, c] = [a, b, c].map(|e| urgency(&policy, e));
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert!(!(a <= b && b <= c) || a <= c);
        prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
    }

    #[test]
    fn oldest_first_never_prefers_a_higher_block(a in entry(), b in entry()) {
        prop_assume!(a.block < b.block);
        prop_assert!(urgency(&Policy::OldestFirst, a) < urgency(&Policy::OldestFirst, b));
    }

    #[test]
    fn within_a_block_the_later_stage_is_first_then_more_attempts_then_age(a in entry(), b in entry()) {
        let b = Entry { block: a.block, ..b };
        let (left, right) = (urgency(&Policy::OldestFirst, a), urgency(&Policy::OldestFirst, b));
        let expected = a.stages_left.cmp(&b.stages_left)
            .then(b.attempt.cmp(&a.attempt))
            .then(a.age.cmp(&b.age));
        prop_assert_eq!(left.cmp(&right), expected);
    }

    #[test]
    fn the_deadline_policy_serves_the_earliest_deadline_and_those_without_one_last(a in entry(), b in entry()) {
        let (left, right) = (urgency(&DEADLINE, a), urgency(&DEADLINE, b));
        match (a.deadline_at, b.deadline_at) {
            (Some(x), Some(y)) if x < y => prop_assert!(left < right),
            (Some(_), None) => prop_assert!(left < right),
            (x, y) if x == y => prop_assert_eq!(left.cmp(&right), urgency(&Policy::OldestFirst, a).cmp(&urgency(&Policy::OldestFirst, b))),
            _ => {}
        }
    }

    #[test]
    fn nobody_starves(
        waiting in proptest::collection::vec(entry(), 1..40),
        arrivals in proptest::collection::vec(entry(), 0..200),
    ) {
        // Each step takes one entry, and entries of *younger* blocks keep arriving, in effect for ever. The
        // number of older blocks is bounded; the chain guarantees this.
        let mut queue = BTreeMap::new();
        let mut number = 0u64;
        let mut push = |queue: &mut BTreeMap<(Urgency, u64), u64>, e: Entry| {
            number += 1;
            queue.insert((urgency(&Policy::OldestFirst, e), number), number);
            number
        };
        let watched: Vec<u64> = waiting.iter().map(|e| push(&mut queue, *e)).collect();

        let bound = watched.len() + arrivals.len();
        let mut popped = Vec::new();
        let mut arriving = arrivals.iter();
        for step in 0..=bound as u64 {
            if let Some(e) = arriving.next() {
                push(&mut queue, *e);
            }
            // An endless stream of new work: each step adds a block younger than all blocks waiting
            // at the start.
            push(&mut queue, Entry { block: 100 + step, deadline_at: None, stages_left: 0, attempt: 9, age: step });
            if let Some((_, taken)) = queue.pop_first() {
                popped.push(taken);
            }
        }
        for entry in watched {
            prop_assert!(popped.contains(&entry), "entry {} still waits after {} steps", entry, bound);
        }
    }
}
