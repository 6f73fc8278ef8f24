//! The state of a process in its own words: its roles as leader and as standby, and the heads of an ingester's chains.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The beginning of the names of push0's services. Other services may answer on the same account.
pub(super) const PREFIX: &str = "push0-";

/// Keys of the metadata in an answer.
pub(super) const REPLICA: &str = "replica";
pub(super) const LEADING: &str = "leading";
pub(super) const STANDBY: &str = "standby";
pub(super) const MEMORY: &str = "memory_bytes";
pub(super) const NOT_READY: &str = "not_ready";
/// Prefix of the keys that tell the newest block of a pipeline's node.
pub(super) const HEAD: &str = "head.";

/// The most bytes of a list of roles in an answer: room for several hundred pipelines.
const LIST_MAX: usize = 32 << 10;
/// How many heads an answer tells.
const HEADS_MAX: usize = 500;

/// The profile of a process. Clones are about the same process.
#[derive(Clone, Default)]
pub(crate) struct Profile(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    /// The candidates of this process: role, and whether the candidate leads.
    seats: BTreeMap<String, (String, bool)>,
    heads: BTreeMap<String, u64>,
}

/// A candidate of this process for a role, until dropped.
pub(crate) struct Seat {
    profile: Profile,
    instance: String,
}

/// A term that this process has, until dropped.
pub(crate) struct Leads(Arc<Seat>);

impl Profile {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a candidate, which does not lead yet.
    pub(crate) fn seat(&self, role: &str, instance: &str) -> Seat {
        self.told()
            .seats
            .insert(instance.to_owned(), (role.to_owned(), false));
        Seat {
            profile: self.clone(),
            instance: instance.to_owned(),
        }
    }

    pub(super) fn note_head(&self, pipeline: &str, number: u64) {
        let mut told = self.told();
        if told.heads.contains_key(pipeline) || told.heads.len() < HEADS_MAX {
            told.heads.insert(pipeline.to_owned(), number);
        }
    }

    /// Returns the metadata about roles and chains. A role that this process leads and waits for is led. Only a leader
    /// tells the head of its chain: that of a standby is old.
    pub(super) fn metadata(&self) -> BTreeMap<String, String> {
        let told = self.told();
        let of = |wanted: bool| {
            let seats = told.seats.values().filter(|(_, leads)| *leads == wanted);
            let mut roles: Vec<&str> = seats.map(|(role, _)| role.as_str()).collect();
            roles.sort_unstable();
            roles.dedup();
            roles
        };
        let leading = of(true);
        let mut standby = of(false);
        standby.retain(|role| !leading.contains(role));
        let heads = told.heads.iter().filter_map(|(pipeline, number)| {
            let role = format!("ingester.{pipeline}");
            leading
                .contains(&role.as_str())
                .then(|| (format!("{HEAD}{pipeline}"), number.to_string()))
        });
        let mut metadata: BTreeMap<String, String> = heads.collect();
        metadata.insert(LEADING.to_owned(), list(&leading));
        metadata.insert(STANDBY.to_owned(), list(&standby));
        metadata
    }
}

/// Returns roles as one text, as many of them as fit.
fn list(roles: &[&str]) -> String {
    let mut text = String::new();
    for role in roles {
        if text.len() + role.len() > LIST_MAX {
            break;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(role);
    }
    text
}

impl Seat {
    fn set(&self, leads: bool) {
        if let Some((_, was)) = self.profile.told().seats.get_mut(&self.instance) {
            *was = leads;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.profile.told().seats.remove(&self.instance);
    }
}

impl Leads {
    /// Notes that this candidate leads.
    pub(crate) fn new(seat: Arc<Seat>) -> Self {
        seat.set(true);
        Self(seat)
    }
}

impl Drop for Leads {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(profile: &Profile) -> (String, String) {
        let metadata = profile.metadata();
        (metadata[LEADING].clone(), metadata[STANDBY].clone())
    }

    #[test]
    fn roles_follow_candidates_and_their_terms() {
        let profile = Profile::default();
        let text = |leading: &str, standby: &str| (leading.to_owned(), standby.to_owned());
        let demo = Arc::new(profile.seat("collector.demo", "1"));
        let other = profile.seat("collector.other", "2");
        assert_eq!(told(&profile), text("", "collector.demo,collector.other"));
        let term = Leads::new(demo.clone());
        assert_eq!(told(&profile), text("collector.demo", "collector.other"));
        drop(term);
        drop(other);
        assert_eq!(told(&profile), text("", "collector.demo"));
        drop(demo);
        assert_eq!(told(&profile), text("", ""));
    }

    #[test]
    fn only_the_leader_of_an_ingester_tells_the_head() {
        let profile = Profile::default();
        let seat = Arc::new(profile.seat("ingester.demo", "1"));
        profile.note_head("demo", 7);
        assert_eq!(profile.metadata().get("head.demo"), None);
        let _term = Leads::new(seat);
        assert_eq!(profile.metadata()["head.demo"], "7");
    }

    #[test]
    fn the_lists_of_thousands_of_roles_are_bounded() {
        let profile = Profile::default();
        let seats: Vec<Seat> = (0..5_000)
            .map(|n| profile.seat(&format!("collector.pipeline-{n}"), &n.to_string()))
            .collect();
        assert_eq!(seats.len(), 5_000);
        assert!(told(&profile).1.len() <= LIST_MAX + 32);
    }
}
