use proptest::prelude::*;
use push0_domain::pipeline::tree_levels;

proptest! {
    #[test]
    fn a_tree_ends_in_one_root_and_every_level_covers_the_one_below(inputs in 0u32..2_000_000, arity in 0u32..300) {
        let levels = tree_levels(inputs, arity);
        prop_assert_eq!(levels.last(), Some(&1));
        prop_assert!(levels.iter().rev().skip(1).all(|width| *width > 1), "one root only: {levels:?}");
        let arity = arity.max(2);
        let mut below = inputs.max(1);
        for width in &levels {
            prop_assert!(u64::from(*width) * u64::from(arity) >= u64::from(below), "all are covered");
            prop_assert!(u64::from(*width - 1) * u64::from(arity) < u64::from(below), "no task is empty");
            below = *width;
        }
    }

    #[test]
    fn a_tree_has_about_as_many_tasks_as_joins_are_needed(inputs in 2u32..2_000_000, arity in 2u32..300) {
        let sum: u64 = tree_levels(inputs, arity).iter().map(|w| u64::from(*w)).sum();
        // Each task removes at most arity - 1 nodes, and each level has at most one task that is not full.
        let least = u64::from(inputs - 1).div_ceil(u64::from(arity - 1));
        let levels = tree_levels(inputs, arity).len() as u64;
        prop_assert!(sum >= least && sum <= least + levels, "{sum} tasks, at least {least}");
    }
}

#[test]
fn known_trees() {
    assert_eq!(tree_levels(0, 2), [1]);
    assert_eq!(tree_levels(1, 2), [1]);
    assert_eq!(tree_levels(2, 2), [1]);
    assert_eq!(tree_levels(8, 2), [4, 2, 1]);
    assert_eq!(tree_levels(9, 3), [3, 1]);
    assert_eq!(tree_levels(10, 3), [4, 2, 1]);
    assert_eq!(tree_levels(100, 100), [1]);
    assert_eq!(tree_levels(u32::MAX, 2).len(), 32);
}
