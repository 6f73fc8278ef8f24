//! The judgement at the top of the page: well, or what is wrong and since when.

use super::Model;
use crate::view::{Problem, Verdict, Zkvm, millis};
use push0_domain::{Timestamp, ZkvmId};
use std::collections::BTreeMap;

/// A stream fuller than this many percent is a problem.
const FULL_PERCENT: u64 = 90;

impl Model {
    /// Judges the deployment, worst first.
    pub(super) fn judge(&self, zkvms: &BTreeMap<ZkvmId, Zkvm>, now: Timestamp) -> Verdict {
        let mut problems: Vec<Problem> = self.away().into_iter().collect();
        problems.extend(self.standing(now));
        problems.extend(zkvms.values().flat_map(of_queue));
        problems.extend(self.silent());
        problems.extend(self.full());
        problems.extend(self.waiting_letters());
        Verdict {
            ok: problems.is_empty(),
            problems,
        }
    }

    fn away(&self) -> Option<Problem> {
        let (since, reason) = self.away.as_ref()?;
        let text = format!("The broker cannot be read, so this page is old: {reason}");
        Some(problem(text).since(*since))
    }

    fn standing(&self, now: Timestamp) -> impl Iterator<Item = Problem> {
        self.chains.iter().filter_map(move |(name, chain)| {
            let since = chain.stalled_since(now)?;
            let (next, waiting) = (chain.next()?, chain.lag()?);
            let text = format!("Pipeline {name} stands at block {next}: {waiting} blocks wait.");
            Some(
                problem(text)
                    .since(since)
                    .at(format!("/pipelines/{name}/blocks/{next}")),
            )
        })
    }

    fn silent(&self) -> impl Iterator<Item = Problem> {
        self.fleet.suspected().map(|((participant, _), heard_at)| {
            let prover = &participant.name;
            let text = format!("{prover} is silent. Second copies of its attempts start elsewhere.");
            problem(text).since(heard_at).at(format!("/provers/{prover}"))
        })
    }

    fn full(&self) -> impl Iterator<Item = Problem> {
        self.streams.iter().filter_map(|stream| {
            let percent = stream.bytes.saturating_mul(100).checked_div(stream.bytes_max)?;
            (percent >= FULL_PERCENT).then(|| problem(format!("Stream {} is {percent} % full.", stream.name)))
        })
    }

    fn waiting_letters(&self) -> Option<Problem> {
        let text = match self.letters {
            0 => return None,
            1 => "1 dead letter waits for a person.".to_owned(),
            count => format!("{count} dead letters wait for a person."),
        };
        Some(problem(text).at("/dead-letters".into()))
    }
}

/// Returns what is wrong with the queue of a zkVM.
fn of_queue(zkvm: &Zkvm) -> Vec<Problem> {
    let link = || format!("/zkvms/{}", zkvm.name);
    let mut problems = Vec::new();
    let work = zkvm.waiting + zkvm.released;
    if zkvm.provers == 0 && work > 0 {
        let text = format!("No prover of zkVM {} is heard, and {work} tasks wait.", zkvm.name);
        problems.push(problem(text).at(link()));
    }
    if let Some(hold) = &zkvm.held {
        let error = hold.error.lines().next().unwrap_or_default();
        let text = format!(
            "The queue of zkVM {} is held: no attempt succeeds. Last error: {error}",
            zkvm.name
        );
        problems.push(Problem {
            since: Some(hold.since),
            ..problem(text).at(link())
        });
    }
    problems
}

fn problem(text: String) -> Problem {
    Problem {
        since: None,
        text,
        link: None,
    }
}

impl Problem {
    fn since(self, at: Timestamp) -> Self {
        Self {
            since: Some(millis(at)),
            ..self
        }
    }

    fn at(self, link: String) -> Self {
        Self {
            link: Some(link),
            ..self
        }
    }
}
