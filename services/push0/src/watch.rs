//! Repeating a command's output until Ctrl-C.

use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use clap::Args;
use std::io::IsTerminal as _;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Clears the screen and moves to its first line.
const CLEAR: &[u8] = b"\x1b[2J\x1b[H";

/// Whether and how often a command's output is repeated.
#[derive(Args, Debug)]
pub(crate) struct Watch {
    /// Repeat until Ctrl-C, every 2 s or at this interval, such as `--watch=1m`. A terminal is cleared in between.
    #[arg(
        long,
        visible_alias = "watch",
        value_name = "TIME",
        value_parser = every,
        num_args = 0..=1,
        default_missing_value = "2s"
    )]
    every: Option<humantime::Duration>,
}

impl Watch {
    /// Returns whether the output is repeated.
    pub(crate) fn is_on(&self) -> bool {
        self.every.is_some()
    }
}

fn every(text: &str) -> Result<humantime::Duration, String> {
    let every: humantime::Duration = text.parse().map_err(|e| format!("{e}"))?;
    if *every < Duration::from_secs(1) {
        return Err("expected at least 1s".into());
    }
    Ok(every)
}

/// Prints what `look` returns at the interval of `watch`, until Ctrl-C or SIGTERM.
pub(crate) async fn repeat(
    context: &Context,
    watch: &Watch,
    look: impl AsyncFn() -> Result<String, Failure>,
) -> Result<(), Failure> {
    let clears = !context.json && std::io::stdout().is_terminal();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut next = tokio::time::interval(watch.every.map_or(Duration::from_secs(2), |every| *every));
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            _ = terminated.recv() => return Ok(()),
            _ = next.tick() => {
                let text = look().await?;
                if clears {
                    output::raw(CLEAR)?;
                }
                output::text(context.json, &text)?;
            }
        }
    }
}
