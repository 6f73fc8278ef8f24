//! Progress of work that takes longer than a second: a bar on a terminal, nothing elsewhere.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use push0_domain::plain::one_line;
use std::sync::LazyLock;
use std::time::Duration;

/// How often a bar moves by itself.
const TICK: Duration = Duration::from_millis(120);

/// The bars of the process, on stderr.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Writes to the terminal. Bars move out of the way of what is written.
pub(crate) fn beside_bars<R>(write: impl FnOnce() -> R) -> R {
    BARS.suspend(write)
}

/// A bar on stderr, until dropped.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Starts a bar towards a number of steps. Nothing is drawn unless stderr is a terminal.
    pub(crate) fn towards(total: u64, what: &str) -> Self {
        let bar = BARS.add(ProgressBar::new(total));
        // The template is a constant: a wrong one shows in any run on a terminal, and the default serves then.
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len} {elapsed} {wide_msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(one_line(what));
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Writes what the work waits for into the bar's line, in place of what was there.
    pub(crate) fn tells(&self, what: &str) {
        self.0.set_message(one_line(what));
    }

    /// Moves the bar to a step.
    pub(crate) fn at(&self, done: u64) {
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
