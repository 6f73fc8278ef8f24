//! The judgement at the top of the page: well, or what is wrong and since when. `push0 status` judges by the same rules.

use super::{Model, fleet::role_of};
use crate::view::{Problem, Verdict, Zkvm, millis};
use push0_domain::{Timestamp, ZkvmId, message::Role};
use push0_operate::judge;
use std::collections::BTreeMap;

impl Model {
    /// Judges the deployment, the most basic problem first: a role without a leader explains a pipeline that stands.
    pub(super) fn judge(&self, zkvms: &BTreeMap<ZkvmId, Zkvm>, now: Timestamp) -> Verdict {
        let mut problems: Vec<Problem> = self.away().into_iter().collect();
        problems.extend(self.troubles.iter().map(|trouble| problem(trouble)));
        problems.extend(self.leaderless());
        problems.extend(self.unserved(zkvms, Role::Prover));
        problems.extend(self.unserved(zkvms, Role::Verifier));
        problems.extend(self.held());
        problems.extend(self.standing(now));
        Verdict {
            ok: problems.is_empty(),
            problems,
            remarks: self.silent().chain(self.waiting_letters()).collect(),
        }
    }

    fn away(&self) -> Option<Problem> {
        let (since, reason) = self.away.as_ref()?;
        let text = format!("the broker cannot be read, so this page is old: {reason}");
        Some(problem(&text).since(Some(*since)))
    }

    fn leaderless(&self) -> impl Iterator<Item = Problem> {
        let vacant = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.is_vacant == (true, true));
        vacant.map(|(role, seat)| {
            let (_, of) = judge::parts_of(role);
            let chains = self.chains.iter();
            let waiting = chains
                .filter(|(name, _)| of.is_none_or(|of| name.as_str() == of))
                .filter_map(|(_, chain)| chain.lag());
            let text = judge::leaderless(role, waiting.fold(0, u64::saturating_add), None);
            problem(&text).since(seat.renewed_at)
        })
    }

    fn held(&self) -> impl Iterator<Item = Problem> {
        self.holds.iter().map(|(zkvm, hold)| {
            problem(&judge::held(zkvm, hold))
                .since(Some(hold.since))
                .at(format!("/zkvms/{zkvm}"))
        })
    }

    /// Names the zkVMs that lagging pipelines need, and of which no process with this role is heard.
    fn unserved(&self, zkvms: &BTreeMap<ZkvmId, Zkvm>, role: Role) -> Vec<Problem> {
        let mut lagging: BTreeMap<ZkvmId, BTreeMap<&str, u64>> = BTreeMap::new();
        for (name, chain) in &self.chains {
            let (Some(definition), Some(lag)) = (chain.definition(), chain.lag().filter(|lag| *lag > 0))
            else {
                continue;
            };
            let needed = match role {
                Role::Prover => definition.zkvms(),
                Role::Verifier => definition.checked_zkvms(),
            };
            for zkvm in needed {
                lagging.entry(zkvm).or_default().insert(name.as_str(), lag);
            }
        }
        let heard = |zkvm: &ZkvmId| {
            zkvms.get(zkvm).map_or(0, |of| match role {
                Role::Prover => of.provers,
                Role::Verifier => of.verifiers,
            })
        };
        let unserved = lagging.iter().filter(|(zkvm, _)| heard(zkvm) == 0);
        unserved
            .map(|(zkvm, lags)| {
                problem(&judge::unserved(zkvm, role, lags))
                    .since(self.fleet.heard_at(zkvm, role == Role::Verifier))
                    .at(format!("/zkvms/{zkvm}"))
            })
            .collect()
    }

    fn standing(&self, now: Timestamp) -> impl Iterator<Item = Problem> {
        self.chains.iter().filter_map(move |(name, chain)| {
            let since = chain.stands_since(self.next_observed_at(name, chain), now)?;
            let (next, waiting) = (chain.next()?, chain.lag()?);
            let link = format!("/pipelines/{name}/blocks/{next}");
            let text = judge::stands(name.as_str(), next, waiting);
            Some(problem(&text).since(Some(since)).at(link))
        })
    }

    fn silent(&self) -> impl Iterator<Item = Problem> {
        self.fleet.suspected().map(|((participant, verifies), heard_at)| {
            let (role, prover) = (role_of(*verifies), &participant.name);
            let text = format!("{role} {prover} is silent: second copies of its attempts start elsewhere");
            problem(&text)
                .since(Some(heard_at))
                .at(format!("/provers/{prover}"))
        })
    }

    fn waiting_letters(&self) -> Option<Problem> {
        let text = match self.letters {
            0 => return None,
            1 => "1 dead letter waits for a person".to_owned(),
            count => format!("{count} dead letters wait for a person"),
        };
        Some(problem(&text).at("/dead-letters".into()))
    }
}

/// Returns a problem as a sentence.
fn problem(text: &str) -> Problem {
    let mut letters = text.trim_end_matches('.').chars();
    let first = letters.next().map(char::to_uppercase);
    let sentence = first.into_iter().flatten().chain(letters).chain(['.']);
    Problem {
        since: None,
        text: sentence.collect(),
        link: None,
    }
}

impl Problem {
    fn since(self, at: Option<Timestamp>) -> Self {
        Self {
            since: at.map(millis),
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
