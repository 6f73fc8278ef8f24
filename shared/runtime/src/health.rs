//! Readiness of this process, as reported by the components that the work needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::{
    Shutdown,
    metrics::{self, MetricError},
};

/// Readiness of a process. The process is ready when all its components are ready and no stop is
/// requested. A process without components is not ready, because its service has just started.
///
/// A service registers all its components before marking any of them ready. Otherwise the process would
/// be ready for a moment in between.
#[derive(Clone, Debug)]
pub struct Health {
    components: Arc<Mutex<Components>>,
    shutdown: Shutdown,
}

/// Reason why each component is not ready; `None` for a ready component.
type Components = BTreeMap<&'static str, Option<String>>;

/// One thing that the work needs, such as the broker. Clones report for the same component.
#[derive(Clone, Debug)]
pub struct Component {
    name: &'static str,
    components: Arc<Mutex<Components>>,
}

/// A role that this process asks for: counter `role_losses_total` and component `role.<role>`.
#[derive(Clone, Debug)]
pub struct Role {
    /// Number of times another process took the role from this one.
    pub losses: metrics::IntCounter,
    /// Not ready while other processes repeatedly take the role from this one.
    pub component: Component,
}

/// Stored state that cannot be read, as components `<kind>.<pipeline>` and the gauge `unreadable_state`. Each pipeline
/// with such state stands still, and the others go on.
#[derive(Clone, Debug)]
pub struct UnreadableState {
    health: Health,
    kind: &'static str,
    gauge: metrics::IntGaugeVec,
    found: Arc<Mutex<BTreeSet<String>>>,
}

impl UnreadableState {
    /// Marks the state of a pipeline unreadable. Each new reason is logged.
    pub fn found(&self, pipeline: &str, reason: impl std::fmt::Display) {
        lock(&self.found).insert(pipeline.to_owned());
        let component = self.health.named_component(&format!("{}.{pipeline}", self.kind));
        component.not_ready(format!("{reason}; `push0 repair` mends it"));
        self.gauge.with_label_values(&[pipeline, self.kind]).set(1);
    }

    /// Marks the state of a pipeline readable again.
    pub fn mended(&self, pipeline: &str) {
        if lock(&self.found).remove(pipeline) {
            let component = self.health.named_component(&format!("{}.{pipeline}", self.kind));
            component.ready();
            self.gauge.with_label_values(&[pipeline, self.kind]).set(0);
        }
    }

    /// Returns whether the state of a pipeline is marked unreadable.
    pub fn holds(&self, pipeline: &str) -> bool {
        lock(&self.found).contains(pipeline)
    }

    /// Marks the state of all pipelines readable, when this process no longer looks at it.
    pub fn clear(&self) {
        let found = lock(&self.found).clone();
        found.iter().for_each(|pipeline| self.mended(pipeline));
    }
}

/// Body of the `/health/ready` response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether the process can do its work.
    pub ready: bool,
    /// Components that are not ready; empty when the process is ready. The entry `process` stands for the
    /// start or the stop of the process itself.
    pub not_ready: Vec<NotReady>,
}

/// A component that is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotReady {
    /// The component's name.
    pub component: &'static str,
    /// Reason why the component is not ready, for human readers.
    pub reason: String,
}

impl Health {
    /// Creates the health of a process stopped through `shutdown`.
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            components: Arc::default(),
            shutdown,
        }
    }

    /// Registers a component, which at first is not ready ("starting"). An already registered component
    /// keeps its state.
    pub fn component(&self, name: &'static str) -> Component {
        lock(&self.components)
            .entry(name)
            .or_insert_with(|| Some("starting".to_owned()));
        Component {
            name,
            components: Arc::clone(&self.components),
        }
    }

    /// Like [`Self::component`], for a name known only at run time, such as a pipeline's. Each name is
    /// kept for the life of the process, so the number of names must be small.
    pub fn named_component(&self, name: &str) -> Component {
        static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let name = match names.get(name) {
            Some(name) => name,
            None => {
                let name: &'static str = name.to_owned().leak();
                names.insert(name);
                name
            }
        };
        self.component(name)
    }

    /// Registers the counter and the component through which a candidate for a role reports.
    ///
    /// # Errors
    /// The counter cannot be registered.
    pub fn role(&self, role: &str) -> Result<Role, MetricError> {
        let losses = metrics::counter_vec(
            "role_losses_total",
            "How often this process lost a role: to another process, or because the broker stored no renewal for 10 s",
            &["role"],
        )?;
        Ok(Role {
            losses: losses.with_label_values(&[role]),
            component: self.named_component(&format!("role.{role}")),
        })
    }

    /// Registers the gauge by which unreadable state of one kind is reported, such as `state` or `definition`.
    ///
    /// # Errors
    /// The gauge cannot be registered.
    pub fn unreadable(&self, kind: &'static str) -> Result<UnreadableState, MetricError> {
        let gauge = metrics::gauge_vec(
            "unreadable_state",
            "1 while stored state of a pipeline cannot be read, so that the pipeline stands still",
            &["pipeline", "kind"],
        )?;
        Ok(UnreadableState {
            health: self.clone(),
            kind,
            gauge,
            found: Arc::default(),
        })
    }

    /// Removes a component, whose state no longer matters. Its next report registers it again.
    pub(crate) fn remove(&self, name: &str) {
        lock(&self.components).remove(name);
    }

    /// Returns why the process is not ready, as one text; `None` if it is ready.
    pub fn trouble(&self) -> Option<String> {
        let reasons = self.readiness().not_ready;
        let texts = reasons
            .iter()
            .map(|waiting| format!("{}: {}", waiting.component, waiting.reason));
        (!reasons.is_empty()).then(|| texts.collect::<Vec<_>>().join("; "))
    }

    /// Returns the state of all components at this moment.
    pub fn readiness(&self) -> Readiness {
        let components = lock(&self.components);
        let waiting = |(name, reason): (&&'static str, &Option<String>)| {
            reason.clone().map(|reason| NotReady {
                component: name,
                reason,
            })
        };
        let mut not_ready: Vec<_> = components.iter().filter_map(waiting).collect();
        let process = |reason: &str| NotReady {
            component: "process",
            reason: reason.to_owned(),
        };
        if components.is_empty() {
            not_ready.push(process("starting"));
        }
        if self.shutdown.is_requested() {
            not_ready.push(process("stopping"));
        }
        Readiness {
            ready: not_ready.is_empty(),
            not_ready,
        }
    }
}

impl Component {
    /// Marks the component ready.
    pub fn ready(&self) {
        self.set(None);
    }

    /// Marks the component not ready for the given reason. Each new reason is logged, so a reason should
    /// not contain changing numbers.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    /// Returns a function for reports of trouble: with `Some`, the component is not ready and the
    /// report is the reason; with `None`, the component is ready. Marks the component ready until
    /// the first report.
    pub fn reporter<R: std::fmt::Display>(self) -> impl Fn(Option<&R>) + Send + Sync + use<R> {
        self.ready();
        move |trouble| match trouble {
            Some(trouble) => self.not_ready(trouble.to_string()),
            None => self.ready(),
        }
    }

    /// Like [`Self::reporter`], for trouble that its source logs by itself. Until the first report, the component
    /// stays as it is.
    pub fn quiet_reporter<R: std::fmt::Display>(self) -> impl Fn(Option<&R>) + Send + Sync + use<R> {
        move |trouble| {
            self.put(trouble.map(ToString::to_string));
        }
    }

    /// Sets the state, and returns the state before.
    fn put(&self, state: Option<String>) -> Option<Option<String>> {
        lock(&self.components).insert(self.name, state)
    }

    fn set(&self, state: Option<String>) {
        let before = self.put(state.clone());
        if before.as_ref() == Some(&state) {
            return;
        }
        match state {
            None => tracing::info!(component = self.name, "ready"),
            Some(reason) => tracing::warn!(component = self.name, reason, "not ready"),
        }
    }
}

/// Locks even after a panic elsewhere: every change is one insertion or removal, so a panic leaves
/// the collection intact.
fn lock<T>(components: &Mutex<T>) -> MutexGuard<'_, T> {
    components.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(health: &Health) -> Vec<(&'static str, String)> {
        let readiness = health.readiness();
        assert_eq!(readiness.ready, readiness.not_ready.is_empty());
        readiness
            .not_ready
            .into_iter()
            .map(|n| (n.component, n.reason))
            .collect()
    }

    #[test]
    fn a_process_is_ready_when_all_its_components_are() {
        let health = Health::new(Shutdown::new());
        assert_eq!(waiting(&health), [("process", "starting".to_owned())]);
        let (broker, store) = (health.component("broker"), health.component("store"));
        assert_eq!(
            waiting(&health),
            [
                ("broker", "starting".to_owned()),
                ("store", "starting".to_owned())
            ]
        );
        broker.ready();
        store.not_ready("no space");
        assert_eq!(waiting(&health), [("store", "no space".to_owned())]);
        assert_eq!(health.trouble().as_deref(), Some("store: no space"));
        store.ready();
        assert_eq!(waiting(&health), []);
        assert_eq!(health.trouble(), None);
    }

    #[test]
    fn a_process_that_stops_is_not_ready() {
        let shutdown = Shutdown::new();
        let health = Health::new(shutdown.clone());
        health.component("broker").ready();
        assert!(health.readiness().ready);
        shutdown.trigger();
        assert_eq!(waiting(&health), [("process", "stopping".to_owned())]);
    }
}
