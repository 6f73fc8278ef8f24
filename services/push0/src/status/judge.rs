//! The judgement on a deployment: its problems and their beginnings. Pure: the time is an argument.

use super::model::{HeldStatus, PipelineStatus, Problem, ProverStatus, RoleStatus, ServiceStatus};
use push0_domain::message::Role;
use push0_domain::{Timestamp, ZkvmId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How many blocks the ingester may be behind its node: a poll of a fast chain brings some at once, and confirmations
/// hold back more.
const BEHIND_NODE: u64 = 100;
/// For how long after the newest record blocks without proofs are a problem: an operator may have left them so.
const UNPROVED_FOR: Duration = Duration::from_secs(3600);

/// The facts that are judged.
#[derive(Default)]
pub(super) struct Facts<'a> {
    pub(super) roles: &'a [RoleStatus],
    pub(super) services: &'a [ServiceStatus],
    pub(super) pipelines: &'a [PipelineStatus],
    pub(super) provers: &'a [ProverStatus],
    pub(super) held: &'a [HeldStatus],
}

/// Returns the problems, the most basic first: a role without a leader explains a pipeline that stands. A zkVM without a
/// prover, or a held queue, explains services that are not ready because they wait for room or for an output.
pub(super) fn judge(facts: &Facts<'_>, now: Timestamp) -> Vec<Problem> {
    let mut problems = leaderless(facts);
    problems.extend(unserved(facts, Role::Prover, now));
    problems.extend(unserved(facts, Role::Verifier, now));
    problems.extend(facts.held.iter().map(held));
    problems.extend(facts.services.iter().filter_map(not_ready));
    problems.extend(
        facts
            .pipelines
            .iter()
            .filter_map(|pipeline| stands(pipeline, now)),
    );
    problems.extend(
        facts
            .pipelines
            .iter()
            .filter_map(|pipeline| unproved(pipeline, now)),
    );
    problems.extend(facts.pipelines.iter().filter_map(behind_node));
    problems
}

/// Names the roles without a leader. All blocks wait for dispatcher and watchdog.
fn leaderless(facts: &Facts<'_>) -> Vec<Problem> {
    let lacking = facts.roles.iter().filter(|role| !role.is_led);
    let problem = |role: &RoleStatus| {
        let (_, of) = push0_operate::judge::parts_of(&role.role);
        let waiting: u64 = facts
            .pipelines
            .iter()
            .filter(|pipeline| of.is_none_or(|name| pipeline.name == name))
            .filter_map(|pipeline| pipeline.lag)
            .sum();
        let text = push0_operate::judge::leaderless(&role.role, waiting, Some(role.standbys.len()));
        Problem::new(text).since(role.since)
    };
    lacking.map(problem).collect()
}

fn not_ready(service: &ServiceStatus) -> Option<Problem> {
    let reason = service.reason.as_ref()?;
    let replica = service.replica.as_ref();
    let on = replica.map_or(String::new(), |replica| format!(" on {replica}"));
    Some(Problem::new(format!(
        "{}{on} is not ready: {reason}",
        service.name
    )))
}

fn held(held: &HeldStatus) -> Problem {
    Problem::new(push0_operate::judge::held(&held.zkvm, &held.queue)).since(Some(held.queue.since))
}

/// Names the zkVMs that lagging pipelines need and of which no prover, or no verifier, is heard.
fn unserved(facts: &Facts<'_>, role: Role, now: Timestamp) -> Vec<Problem> {
    let mut lagging: BTreeMap<&ZkvmId, BTreeMap<&str, u64>> = BTreeMap::new();
    for pipeline in facts.pipelines {
        let Some(lag) = pipeline.lag.filter(|lag| *lag > 0) else {
            continue;
        };
        let zkvms = match role {
            Role::Prover => &pipeline.zkvms,
            Role::Verifier => &pipeline.checked,
        };
        for zkvm in zkvms {
            lagging.entry(zkvm).or_default().insert(&pipeline.name, lag);
        }
    }
    let of = |zkvm: &ZkvmId| {
        let provers = facts.provers.iter();
        provers
            .filter(|prover| prover.zkvm == *zkvm && prover.role == role)
            .collect::<Vec<_>>()
    };
    let problem = |(zkvm, lags): (&ZkvmId, BTreeMap<&str, u64>)| {
        let provers = of(zkvm);
        if provers.iter().any(|prover| !prover.lost && !prover.left) {
            return None;
        }
        let last = provers.iter().map(|prover| prover.heard_ms_ago).min();
        let since = last.map(|ms| now.minus(Duration::from_millis(ms)));
        let text = push0_operate::judge::unserved(zkvm, role, &lags);
        Some(Problem::new(text).since(since))
    };
    lagging.into_iter().filter_map(problem).collect()
}

/// Says that a pipeline emits nothing although blocks wait.
fn stands(pipeline: &PipelineStatus, now: Timestamp) -> Option<Problem> {
    let (next, observed_at) = (pipeline.next?, pipeline.next_observed_at);
    let since = push0_operate::judge::stands_since(pipeline.lag, observed_at, pipeline.recorded_at, now)?;
    let text = push0_operate::judge::stands(&pipeline.name, next, pipeline.lag?);
    Some(Problem::new(text).since(Some(since)))
}

/// Says that a pipeline's blocks end without proofs, of which no other rule may tell: everything works, and is too slow
/// for the deadline, or judges it by a clock that is wrong.
fn unproved(pipeline: &PipelineStatus, now: Timestamp) -> Option<Problem> {
    let unproved = pipeline.unproved.as_ref()?;
    let is_recent = now.since(pipeline.recorded_at?) < UNPROVED_FOR;
    let (name, block) = (&pipeline.name, unproved.block);
    let text = format!(
        "the newest {} blocks of pipeline {name} got no proof, the last one is {block}: {}. `push0 block {block} --pipeline \
         {name}` says more",
        unproved.count, unproved.outcome
    );
    is_recent.then(|| Problem::new(text).since(Some(unproved.since)))
}

fn behind_node(pipeline: &PipelineStatus) -> Option<Problem> {
    let behind = pipeline.head?.saturating_sub(pipeline.ingested?);
    (behind > BEHIND_NODE && pipeline.is_ingested).then(|| {
        Problem::new(format!(
            "the ingester of pipeline {} is {behind} blocks behind its node: it catches up, or waits for room or for \
             confirmations",
            pipeline.name
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::message::{HeldQueue, ProverState};

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn ago(seconds: u64) -> Timestamp {
        NOW.minus(Duration::from_secs(seconds))
    }

    fn role(name: &str, is_led: bool) -> RoleStatus {
        RoleStatus {
            role: name.into(),
            is_led,
            leaders: Vec::new(),
            standbys: Vec::new(),
            since: Some(ago(60)),
        }
    }

    fn pipeline(lag: u64) -> PipelineStatus {
        PipelineStatus {
            name: "demo".into(),
            ingested: Some(9 + lag),
            next: Some(10),
            lag: Some(lag),
            recorded_at: Some(ago(400)),
            next_observed_at: Some(ago(10)),
            zkvms: vec!["miden".parse().unwrap()],
            is_ingested: true,
            ..PipelineStatus::default()
        }
    }

    fn prover(heard_ms_ago: u64, lost: bool) -> ProverStatus {
        ProverStatus {
            id: "miden-1".parse().unwrap(),
            zkvm: "miden".parse().unwrap(),
            role: Role::Prover,
            slots: 1,
            held: 0,
            state: ProverState::Active,
            heard_ms_ago,
            lost,
            left: false,
        }
    }

    fn texts(facts: &Facts<'_>) -> Vec<String> {
        judge(facts, NOW)
            .into_iter()
            .map(|problem| problem.text)
            .collect()
    }

    #[test]
    fn a_deployment_that_works_has_no_problems() {
        let facts = Facts {
            roles: &[role("dispatcher", true), role("collector.demo", true)],
            pipelines: &[pipeline(3)],
            provers: &[prover(100, false)],
            ..Facts::default()
        };
        assert_eq!(judge(&facts, NOW), []);
    }

    #[test]
    fn a_role_without_a_leader_is_named_with_what_waits_for_it() {
        let other = PipelineStatus {
            name: "other".into(),
            lag: Some(1),
            ..PipelineStatus::default()
        };
        let mut standby = role("collector.other", false);
        standby.standbys.push("b/1".into());
        let facts = Facts {
            roles: &[role("dispatcher", false), standby],
            pipelines: &[pipeline(4), other],
            provers: &[prover(100, false)],
            ..Facts::default()
        };
        let problems = judge(&facts, NOW);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(
            problems[0].text,
            "no process leads as dispatcher, and 5 blocks wait; no dispatcher answers: start one, or look at its log"
        );
        assert_eq!(problems[0].since, Some(ago(60)));
        assert!(
            problems[1]
                .text
                .contains("collector.other, and 1 block waits; 1 process stands by, and one takes over")
        );
    }

    #[test]
    fn blocks_wait_for_a_prover_only_while_none_is_heard() {
        let of = |lag, provers: &[ProverStatus]| {
            let facts = Facts {
                pipelines: &[pipeline(lag)],
                provers,
                ..Facts::default()
            };
            judge(&facts, NOW)
        };
        assert_eq!(of(0, &[]), []);
        assert_eq!(of(2, &[prover(100, false), prover(9_000, true)]), []);
        let none = of(2, &[prover(9_000, true), prover(60_000, true)]);
        assert!(
            none[0].text.starts_with(
                "no prover of zkVM miden is heard, and pipeline demo, which needs one, lags by 2 blocks:"
            ),
            "{none:?}"
        );
        assert_eq!(none[0].since, Some(ago(9)));
        assert_eq!(of(1, &[])[0].since, None);
    }

    #[test]
    fn blocks_wait_for_a_verifier_where_their_proofs_are_checked() {
        let of = |verifier: ProverStatus| {
            let checked = PipelineStatus {
                checked: vec!["miden".parse().unwrap()],
                ..pipeline(2)
            };
            texts(&Facts {
                pipelines: &[checked],
                provers: &[prover(100, false), verifier],
                ..Facts::default()
            })
        };
        let verifier = |lost| ProverStatus {
            role: Role::Verifier,
            ..prover(9_000, lost)
        };
        assert!(of(verifier(false)).is_empty());
        let none = of(verifier(true));
        assert!(
            none[0].starts_with(
                "no verifier of zkVM miden is heard, and pipeline demo, which needs one, lags by 2 blocks:"
            ),
            "{none:?}"
        );
    }

    #[test]
    fn a_pipeline_stands_five_minutes_after_its_last_record_and_its_next_block() {
        let at = |recorded, observed| {
            let standing = PipelineStatus {
                recorded_at: Some(ago(recorded)),
                next_observed_at: Some(ago(observed)),
                ..pipeline(2)
            };
            stands(&standing, NOW)
        };
        assert_eq!((at(1_000, 299), at(299, 1_000)), (None, None));
        let without_record = PipelineStatus {
            recorded_at: None,
            next_observed_at: Some(ago(301)),
            ..pipeline(2)
        };
        assert!(stands(&without_record, NOW).is_some());
        let standing = at(301, 302).expect("it stands");
        assert!(
            standing.text.contains("stands at block 10, and 2 blocks wait"),
            "{standing:?}"
        );
        assert_eq!(standing.since, Some(ago(301)));
    }

    #[test]
    fn blocks_without_proofs_are_told_for_an_hour() {
        let at = |recorded| {
            let late = PipelineStatus {
                recorded_at: Some(ago(recorded)),
                unproved: Some(super::super::model::Unproved {
                    count: 3,
                    block: 9,
                    outcome: "too late".into(),
                    since: ago(recorded + 6),
                }),
                ..pipeline(0)
            };
            unproved(&late, NOW)
        };
        let told = at(4).expect("they are recent");
        assert!(
            told.text.starts_with(
                "the newest 3 blocks of pipeline demo got no proof, the last one is 9: too late"
            ),
            "{told:?}"
        );
        assert_eq!((told.since, at(3600)), (Some(ago(10)), None));
    }

    #[test]
    fn trouble_of_services_queues_and_nodes_is_told() {
        let service = ServiceStatus {
            name: "ingester".into(),
            replica: Some("a/7".into()),
            reason: Some("source.demo: no answer".into()),
            ..ServiceStatus::default()
        };
        let held = HeldStatus {
            zkvm: "miden".parse().unwrap(),
            queue: HeldQueue {
                since: ago(9),
                failures: 12,
                error: "no key\nmore".into(),
                task: None,
            },
        };
        let behind = PipelineStatus {
            head: Some(200),
            ..pipeline(0)
        };
        let facts = Facts {
            services: &[service],
            held: &[held],
            pipelines: &[behind],
            ..Facts::default()
        };
        let told = texts(&facts);
        assert!(told[0].ends_with("Last error: no key"), "{told:?}");
        assert_eq!(told[1], "ingester on a/7 is not ready: source.demo: no answer");
        assert!(told[2].contains("is 191 blocks behind its node"), "{told:?}");
    }

    /// An ingester waits for room while nobody proves, and is not ready then.
    #[test]
    fn a_zkvm_without_a_prover_is_told_before_a_service_that_is_not_ready() {
        let service = ServiceStatus {
            name: "ingester".into(),
            reason: Some("source.demo: waits for room".into()),
            ..ServiceStatus::default()
        };
        let other = PipelineStatus {
            name: "other".into(),
            ..pipeline(1)
        };
        let facts = Facts {
            services: &[service],
            pipelines: &[pipeline(2), other],
            ..Facts::default()
        };
        let told = texts(&facts);
        assert!(
            told[0].starts_with(
                "no prover of zkVM miden is heard, and 2 pipelines that need one lag by 3 blocks:"
            ),
            "{told:?}"
        );
        assert!(told[1].starts_with("ingester is not ready"), "{told:?}");
    }
}
