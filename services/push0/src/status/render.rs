//! The state of a deployment as text.

use super::model::{PipelineStatus, Problem, ProverStatus, RoleStatus, ServiceStatus, Status, StreamStatus};
use crate::table::{self, Align, NONE};
use crate::times;
use push0_domain::message::{ProverState, Role};
use push0_domain::{Timestamp, plain::one_line};
use std::time::Duration;

/// Returns the first line: `OK`, or the worst that is wrong and since when.
pub(crate) fn first_line(status: &Status) -> String {
    match &status.problems[..] {
        [] => summary(status),
        [only] => format!("NOT OK: {}", problem(only, status.at)),
        [worst, rest @ ..] => {
            format!("NOT OK: {} (and {} more)", problem(worst, status.at), rest.len())
        }
    }
}

/// Returns `OK` with a few numbers.
fn summary(status: &Status) -> String {
    let lag: u64 = status.pipelines.iter().filter_map(|pipeline| pipeline.lag).sum();
    let there = status
        .provers
        .iter()
        .filter(|prover| !prover.lost && !prover.left);
    let count = |count: u64, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let of = |role: Role| there.clone().filter(|prover| prover.role == role).count() as u64;
    format!(
        "OK: {}, {} in flight, {} and {} heard",
        count(status.pipelines.len() as u64, "pipeline"),
        count(lag, "block"),
        count(of(Role::Prover), "prover"),
        count(of(Role::Verifier), "verifier")
    )
}

fn problem(problem: &Problem, now: Timestamp) -> String {
    let since = problem.since.map_or(String::new(), |since| {
        format!(
            ", since {} ({})",
            times::local(since, now),
            table::span(now.since(since))
        )
    });
    format!("{}{since}", one_line(&problem.text))
}

/// Returns everything.
pub(crate) fn render(status: &Status) -> String {
    let mut first = first_line(status);
    for other in status.problems.iter().skip(1) {
        first.push_str("\n  ");
        first.push_str(&problem(other, status.at));
    }
    let mut parts = vec![first];
    if !status.roles.is_empty() {
        parts.push(roles(status));
    }
    if !status.services.is_empty() {
        parts.push(services(&status.services));
    }
    parts.push(streams(&status.streams));
    parts.push(pipelines(&status.pipelines));
    parts.push(provers(&status.provers));
    parts.push(format!("dead letters: {}", status.dead_letters));
    parts.join("\n\n")
}

fn roles(status: &Status) -> String {
    let columns = [
        ("role", Align::Left),
        ("leader", Align::Left),
        ("since", Align::Left),
        ("standbys", Align::Left),
    ];
    let row = |role: &RoleStatus| {
        let leader = match (&role.leaders[..], role.is_led) {
            (_, false) => "nobody".to_owned(),
            ([], true) => "does not answer".to_owned(),
            (leaders, true) => leaders.join(", "),
        };
        vec![
            role.role.clone(),
            leader,
            role.since
                .map_or(NONE.into(), |since| times::with_age(since, status.at)),
            match &role.standbys[..] {
                [] => NONE.to_owned(),
                standbys => standbys.join(", "),
            },
        ]
    };
    table::render(&columns, &status.roles.iter().map(row).collect::<Vec<_>>())
}

fn services(services: &[ServiceStatus]) -> String {
    let columns = [
        ("service", Align::Left),
        ("replica", Align::Left),
        ("version", Align::Left),
        ("leads", Align::Right),
        ("stands by", Align::Right),
        ("memory", Align::Right),
        ("state", Align::Left),
    ];
    let text = |text: &Option<String>| text.clone().unwrap_or(NONE.into());
    let count = |known: bool, count: usize| if known { count.to_string() } else { NONE.into() };
    let row = |service: &ServiceStatus| {
        let is_known = service.replica.is_some();
        let reason = service
            .reason
            .as_ref()
            .map(|reason| format!("not ready: {reason}"));
        vec![
            service.name.clone(),
            text(&service.replica),
            text(&service.version),
            count(is_known, service.leading.len()),
            count(is_known, service.standby.len()),
            service.memory_bytes.map_or(NONE.into(), table::bytes),
            reason.unwrap_or("ready".into()),
        ]
    };
    table::render(&columns, &services.iter().map(row).collect::<Vec<_>>())
}

fn streams(streams: &[StreamStatus]) -> String {
    let columns = [
        ("stream", Align::Left),
        ("messages", Align::Right),
        ("bytes", Align::Right),
        ("of limit", Align::Right),
        ("copies", Align::Right),
        ("leader", Align::Left),
    ];
    let row = |stream: &StreamStatus| {
        let percent = (stream.bytes * 100).checked_div(stream.bytes_max);
        vec![
            stream.name.clone(),
            stream.messages.to_string(),
            table::bytes(stream.bytes),
            percent.map_or(NONE.into(), |percent| format!("{percent}%")),
            format!("{} of {}", stream.copies_current, stream.copies),
            stream.leader.clone().unwrap_or(NONE.into()),
        ]
    };
    table::render(&columns, &streams.iter().map(row).collect::<Vec<_>>())
}

fn pipelines(pipelines: &[PipelineStatus]) -> String {
    let columns = [
        ("pipeline", Align::Left),
        ("revision", Align::Right),
        ("policy", Align::Left),
        ("head", Align::Right),
        ("ingested", Align::Right),
        ("next to emit", Align::Right),
        ("lag", Align::Right),
        ("behind head", Align::Right),
    ];
    let number = |number: Option<u64>| number.map_or(NONE.into(), |n| n.to_string());
    let row = |pipeline: &PipelineStatus| {
        vec![
            pipeline.name.clone(),
            pipeline.revision.to_string(),
            pipeline.policy.clone(),
            number(pipeline.head),
            number(pipeline.ingested),
            number(pipeline.next),
            number(pipeline.lag),
            number(pipeline.behind_head),
        ]
    };
    or_none("pipelines", &columns, pipelines.iter().map(row).collect())
}

fn provers(provers: &[ProverStatus]) -> String {
    let columns = [
        ("prover", Align::Left),
        ("zkvm", Align::Left),
        ("role", Align::Left),
        ("slots", Align::Right),
        ("held", Align::Right),
        ("state", Align::Left),
        ("heard", Align::Right),
    ];
    or_none("provers", &columns, provers.iter().map(prover_row).collect())
}

fn prover_row(prover: &ProverStatus) -> Vec<String> {
    vec![
        prover.id.to_string(),
        prover.zkvm.to_string(),
        role(prover.role).into(),
        prover.slots.to_string(),
        prover.held.to_string(),
        state(prover).into(),
        format!("{} ago", table::span(Duration::from_millis(prover.heard_ms_ago))),
    ]
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Prover => "prover",
        Role::Verifier => "verifier",
    }
}

/// Returns the state of a prover in a word.
pub(crate) fn state(prover: &ProverStatus) -> &'static str {
    match prover.state {
        _ if prover.left => "left",
        _ if prover.lost => "lost",
        ProverState::Active => "active",
        ProverState::Draining => "draining",
        ProverState::Quarantined => "quarantined",
    }
}

fn or_none(what: &str, columns: &[(&str, Align)], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        format!("{what}: none")
    } else {
        table::render(columns, &rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_prover_is_shown_as_lost_and_one_that_ended_in_order_as_left() {
        let prover = |heard_ms_ago, lost, left| ProverStatus {
            id: "miden-1".parse().unwrap(),
            zkvm: "miden".parse().unwrap(),
            role: Role::Prover,
            slots: 2,
            held: 1,
            state: ProverState::Active,
            heard_ms_ago,
            lost,
            left,
        };
        let row = prover_row(&prover(120, false, false));
        assert_eq!(
            row,
            ["miden-1", "miden", "prover", "2", "1", "active", "120 ms ago"]
        );
        assert_eq!(
            prover_row(&prover(5_000, true, false))[5..],
            ["lost", "5.0 s ago"]
        );
        assert_eq!(prover_row(&prover(5_000, false, true))[5], "left");
    }

    #[test]
    fn the_first_line_says_ok_or_the_worst_and_how_much_more() {
        let of = |problems: &[&str]| {
            let status = Status::of_nothing(Timestamp(1_800_000_000_000_000), problems);
            (first_line(&status), render(&status))
        };
        assert_eq!(
            of(&[]).0,
            "OK: 0 pipelines, 0 blocks in flight, 0 provers and 0 verifiers heard"
        );
        let (first, all) = of(&["no disk\nis there", "second", "third"]);
        assert!(first.starts_with("NOT OK: no disk is there, since "), "{first}");
        assert!(first.ends_with(" (5 min) (and 2 more)"), "{first}");
        assert!(
            all.contains("\n  second, since ") && all.contains("\n  third, since "),
            "{all}"
        );
    }
}
