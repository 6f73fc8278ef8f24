//! Whether work that starts over after each failure still gets done, as a component of readiness.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Health;

/// How many failures in a row make the process not ready. One failure is an accident, which starting over mends.
const MANY: u32 = 2;

/// Work that starts over after each failure, such as that of one pipeline. After two failures in a row the component
/// `<kind>.<name>` is not ready, until the work gets done again. Clones report for the same work.
#[derive(Clone, Debug)]
pub struct Serving {
    health: Health,
    component: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    is_shown: bool,
    is_withdrawn: bool,
}

impl Serving {
    /// Returns the reporter of one piece of work. The component appears with the second failure in a row.
    pub fn new(health: &Health, kind: &str, name: &str) -> Self {
        Self {
            health: health.clone(),
            component: format!("{kind}.{name}"),
            state: Arc::default(),
        }
    }

    /// Reports a failure.
    pub fn failed(&self, reason: impl Display) {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= MANY && !state.is_withdrawn {
            state.is_shown = true;
            let component = self.health.named_component(&self.component);
            component.not_ready(format!("starting over again and again: {reason}"));
        }
    }

    /// Reports that the work gets done.
    pub fn serves(&self) {
        let mut state = self.lock();
        state.failures = 0;
        if state.is_shown {
            self.health.named_component(&self.component).ready();
        }
    }

    /// Removes the component, because this work is no longer wanted. Failures do not show from now on.
    pub fn withdraw(&self) {
        let mut state = self.lock();
        *state = State {
            is_withdrawn: true,
            ..State::default()
        };
        self.health.remove(&self.component);
    }

    /// Lets failures show again, because the work is wanted again.
    pub fn restore(&self) {
        self.lock().is_withdrawn = false;
    }

    /// Locks even after a panic elsewhere: every change leaves a valid state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shutdown;

    #[test]
    fn two_failures_in_a_row_show_until_the_work_gets_done_or_is_not_wanted() {
        let health = Health::new(Shutdown::new());
        health.component("broker").ready();
        let reasons = || -> Vec<_> {
            let not_ready = health.readiness().not_ready;
            not_ready.into_iter().map(|n| (n.component, n.reason)).collect()
        };
        let shown = [(
            "collecting.demo",
            "starting over again and again: away".to_owned(),
        )];
        let serving = Serving::new(&health, "collecting", "demo");
        serving.failed("away");
        assert_eq!(reasons(), [], "one failure is an accident");
        serving.serves();
        serving.failed("away");
        assert_eq!(reasons(), [], "the failures are not in a row");
        serving.failed("away");
        assert_eq!(reasons(), shown);
        serving.serves();
        assert_eq!(reasons(), []);
        serving.failed("away");
        serving.failed("away");
        assert_eq!(reasons(), shown);
        serving.withdraw();
        serving.failed("away");
        serving.failed("away");
        serving.serves();
        assert_eq!(reasons(), [], "a removed pipeline");
        serving.restore();
        serving.failed("away");
        serving.failed("away");
        assert_eq!(reasons(), shown, "the pipeline is applied again");
    }
}
