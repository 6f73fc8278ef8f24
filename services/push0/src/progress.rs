//! Progress of work that takes longer than a second: a bar on a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use push0_domain::plain::one_line;
use std::io::IsTerminal as _;
use std::time::Duration;

/// How often a bar moves by itself.
const TICK: Duration = Duration::from_millis(120);

/// A bar on stderr, until dropped.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Starts a bar towards a number of steps. Nothing is drawn unless stderr is a terminal.
    pub(crate) fn towards(total: u64, what: &str) -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        // The template is a constant: a wrong one shows in any run on a terminal, and the default serves then.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{bar:30}] {pos}/{len} {elapsed}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(one_line(what));
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Moves the bar to a step.
    pub(crate) fn at(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Prints a line above the bar.
    pub(crate) fn note(&self, text: &str) {
        self.0.suspend(|| crate::output::note(text));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
