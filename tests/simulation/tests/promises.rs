//! Runs seeds through the simulation.
//!
//! | environment variable | meaning |
//! |---|---|
//! | `PUSH0_SIM_SEEDS` | number of seeds; the default is 10,000, or 1 if a first seed is given |
//! | `PUSH0_SIM_SEED` | the first seed; the default is 1 |
//! | `PUSH0_SIM_LOG` | file for the log of the first seed that fails |

use push0_simulation::{Broken, Summary, log, run};

/// Number of failures after which a run stops: enough to show a common pattern.
const FAILURES_MAX: usize = 20;
/// Number of tests among which the seeds are divided. Each test stays far below the time limit of a test.
const PARTS: u64 = 5;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect(variable))
}

fn every_promise_holds(part: u64) {
    let first = number("PUSH0_SIM_SEED");
    let count = number("PUSH0_SIM_SEEDS").unwrap_or(if first.is_some() { 1 } else { 10_000 });
    let first = first.unwrap_or(1);
    let seeds = (first..first + count).filter(|seed| (seed - first) % PARTS == part);
    let mut total = Summary::default();
    let mut broken: Vec<Broken> = Vec::new();
    for seed in seeds {
        match run(seed) {
            Ok(summary) => total = total + summary,
            Err(failure) => broken.push(failure),
        }
        if broken.len() == FAILURES_MAX {
            break;
        }
    }
    println!("{total:?}");
    if let (Some(failure), Ok(path)) = (broken.first(), std::env::var("PUSH0_SIM_LOG")) {
        std::fs::write(&path, log(failure.seed)).expect(&path);
    }
    let list: String = broken.iter().map(|failure| format!("\n{failure}")).collect();
    assert!(broken.is_empty(), "PUSH0_SIM_SEED=<seed> repeats one of:{list}");
}

#[test]
fn every_promise_holds_on_the_first_fifth_of_the_seeds() {
    every_promise_holds(0);
}

#[test]
fn every_promise_holds_on_the_second_fifth_of_the_seeds() {
    every_promise_holds(1);
}

#[test]
fn every_promise_holds_on_the_third_fifth_of_the_seeds() {
    every_promise_holds(2);
}

#[test]
fn every_promise_holds_on_the_fourth_fifth_of_the_seeds() {
    every_promise_holds(3);
}

#[test]
fn every_promise_holds_on_the_last_fifth_of_the_seeds() {
    every_promise_holds(4);
}

/// Faults that meet no decision find nothing.
#[test]
fn the_faults_of_a_few_hundred_seeds_reach_every_part_of_the_watchdog() {
    let runs = (1..=300).map(|seed| run(seed).expect("every promise holds"));
    let total = runs.fold(Summary::default(), |total, summary| total + summary);
    assert!(total.quarantines > 0 && total.passed_on > 0, "{total:?}");
}

#[test]
fn a_seed_repeats_byte_for_byte() {
    for seed in [1, 2, 3, 77, 4242] {
        assert!(log(seed) == log(seed), "two runs of seed {seed} differ");
    }
}
