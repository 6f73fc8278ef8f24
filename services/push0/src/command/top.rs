//! `push0 top`: a live screen of the deployment.

use crate::context::Context;
use crate::failure::Failure;
use crate::record::Record;
use crate::records;
use crate::status::{self, Status};
use crate::top::{Screen, draw};
use push0_bus::{Bus, Pipelines};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use std::io::IsTerminal as _;
use std::time::Duration;

/// How long the screen stays between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many of the newest records are shown.
const RECORDS: usize = 40;

/// The terminal while the screen is on it. Dropping it brings the operator's screen back, whatever ended the command.
struct Terminal(DefaultTerminal);

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    if context.json || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "`push0 top` needs a terminal: use `push0 status --watch`, or `push0 status --json` for programs",
        ));
    }
    let bus = context.bus().await?;
    let mut terminal = Terminal(ratatui::try_init()?);
    loop {
        let (status, records) = look(context, &bus).await;
        let screen = Screen {
            status: &status,
            records: &records,
        };
        terminal.0.draw(|frame| draw(frame, &screen))?;
        if tokio::task::spawn_blocking(wait).await?? {
            return Ok(());
        }
    }
}

/// Reads the facts to show. Records that cannot be read are left out: the status names them.
async fn look(context: &Context, bus: &Bus) -> (Status, Vec<Record>) {
    let newest = async {
        let mut newest = Vec::new();
        for pipeline in Pipelines::bind(bus).await?.current().await? {
            newest.extend(records::tail(bus, &pipeline.name, RECORDS).await?);
        }
        newest.sort_by_key(|record: &Record| record.stored_at);
        Ok::<_, Failure>(newest)
    };
    let (status, newest) = tokio::join!(status::look(context, bus), newest);
    (status, newest.unwrap_or_default())
}

/// Waits until the next look, or for a key. Returns whether the operator quits.
fn wait() -> std::io::Result<bool> {
    if !event::poll(LOOK_EVERY)? {
        return Ok(false);
    }
    let Event::Key(key) = event::read()? else {
        return Ok(false);
    };
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    Ok(is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}
