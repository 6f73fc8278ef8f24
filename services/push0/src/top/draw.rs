//! Draws the screen: pure, so that a test draws it without a terminal.

use crate::record::{self, Record};
use crate::status::{Status, first_line, state_of};
use crate::{table, times};
use push0_domain::message::Role;
use push0_domain::plain::one_line;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table, Wrap};
use std::time::Duration;

/// A stream fuller than this many percent is shown in red.
const FULL_PERCENT: u64 = 80;
/// The most rows of the verdict.
const VERDICT_MAX: u16 = 6;
/// The length of a word that does not fit into the rest of a row.
const WORD: u16 = 10;

/// The state that the screen shows.
pub(crate) struct Screen<'a> {
    pub(crate) status: &'a Status,
    /// The newest records, the newest last.
    pub(crate) records: &'a [Record],
}

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame<'_>, screen: &Screen<'_>) {
    let status = screen.status;
    let verdict = verdict(status);
    let problems = height(&verdict, frame.area().width);
    let lines =
        |count: usize| Constraint::Length(u16::try_from(count).unwrap_or(u16::MAX).saturating_add(2).min(10));
    let [top, middle, bottom, streams, help] = Layout::vertical([
        Constraint::Length(problems),
        lines(status.pipelines.len().max(status.roles.len()) + 1),
        Constraint::Min(6),
        lines(status.streams.len().div_ceil(3)),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(verdict).wrap(Wrap { trim: false }), top);
    let [left, right] = Layout::horizontal([Constraint::Percentage(50); 2]).areas(middle);
    pipelines(frame, left, status);
    roles(frame, right, status);
    let [left, right] = Layout::horizontal([Constraint::Percentage(50); 2]).areas(bottom);
    provers(frame, left, status);
    blocks(frame, right, screen.records);
    fill(frame, streams, status);
    let keys = format!(" q quits · as of {}", times::local(status.at, status.at));
    frame.render_widget(Line::from(keys).dim(), help);
}

fn verdict(status: &Status) -> Vec<Line<'static>> {
    let colour = if status.ok { Color::Green } else { Color::Red };
    let mut lines = vec![Line::from(one_line(&first_line(status))).style(Style::new().fg(colour).bold())];
    let others = status.problems.iter().skip(1);
    lines.extend(others.map(|problem| Line::from(format!("  {}", one_line(&problem.text)))));
    lines
}

/// Returns how many rows these lines take where long ones are wrapped, at most [`VERDICT_MAX`].
fn height(lines: &[Line<'_>], width: u16) -> u16 {
    // Words end a row early.
    let room = usize::from(width.saturating_sub(WORD).max(1));
    let rows: usize = lines.iter().map(|line| line.width().div_ceil(room).max(1)).sum();
    u16::try_from(rows).unwrap_or(VERDICT_MAX).min(VERDICT_MAX)
}

/// Returns the widths of columns: what their cells need, as far as there is room, and at least their header.
fn fit(header: &[&str], rows: &[Vec<String>], room: u16) -> Vec<u16> {
    let least: Vec<usize> = header.iter().map(|header| header.len()).collect();
    let widest = |(place, least): (usize, &usize)| {
        let cells = rows.iter().filter_map(|row| row.get(place));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
            .max(*least)
    };
    let mut widths: Vec<usize> = least.iter().enumerate().map(widest).collect();
    // One cell is left free between columns.
    let room = usize::from(room).saturating_sub(header.len().saturating_sub(1));
    while widths.iter().sum::<usize>() > room {
        let spare = widths
            .iter_mut()
            .zip(&least)
            .max_by_key(|(width, least)| width.saturating_sub(**least));
        match spare {
            Some((width, least)) if *width > *least => *width -= 1,
            _ => break,
        }
    }
    widths
        .into_iter()
        .map(|width| u16::try_from(width).unwrap_or(u16::MAX))
        .collect()
}

/// Draws rows under a header, in a box.
fn boxed(frame: &mut Frame<'_>, area: Rect, title: &str, header: &[&'static str], rows: Vec<Vec<String>>) {
    let widths = fit(header, &rows, area.width.saturating_sub(2));
    let cells = |row: Vec<String>| {
        Row::new(row.into_iter().map(|cell| {
            let style = colour_of(&cell);
            Cell::from(one_line(&cell)).style(style)
        }))
    };
    let widths: Vec<Constraint> = widths.into_iter().map(Constraint::Length).collect();
    let table = Table::new(rows.into_iter().map(cells), widths)
        .header(Row::new(header.to_vec()).style(Style::new().bold()))
        .block(Block::new().borders(Borders::ALL).title(format!(" {title} ")));
    frame.render_widget(table, area);
}

fn colour_of(cell: &str) -> Style {
    match cell {
        "proved" | "active" | "ready" => Style::new().fg(Color::Green),
        "dead" | "lost" | "nobody" => Style::new().fg(Color::Red),
        "cancelled" | "too late" | "draining" | "quarantined" | "left" => Style::new().fg(Color::Yellow),
        _ => Style::new(),
    }
}

fn number(number: Option<u64>) -> String {
    number.map_or(table::NONE.into(), |number| number.to_string())
}

fn pipelines(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let rows = status.pipelines.iter().map(|pipeline| {
        vec![
            pipeline.name.clone(),
            number(pipeline.head),
            number(pipeline.ingested),
            number(pipeline.next),
            number(pipeline.lag),
        ]
    });
    let header = ["pipeline", "head", "ingested", "next", "lag"];
    boxed(frame, area, "pipelines", &header, rows.collect());
}

fn roles(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let rows = status.roles.iter().map(|role| {
        let leader = match (&role.leaders[..], role.is_led) {
            (_, false) => "nobody".to_owned(),
            ([], true) => "does not answer".to_owned(),
            (leaders, true) => leaders.join(", "),
        };
        vec![role.role.clone(), leader, role.standbys.len().to_string()]
    });
    boxed(
        frame,
        area,
        "roles",
        &["role", "leader", "standbys"],
        rows.collect(),
    );
}

fn provers(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let rows = status.provers.iter().map(|prover| {
        vec![
            prover.id.to_string(),
            match prover.role {
                Role::Prover => "prover".into(),
                Role::Verifier => "verifier".into(),
            },
            format!("{}/{}", prover.held, prover.slots),
            state_of(prover).into(),
            table::span(Duration::from_millis(prover.heard_ms_ago)),
        ]
    });
    let header = ["prover", "role", "held", "state", "heard"];
    boxed(frame, area, "provers", &header, rows.collect());
}

fn blocks(frame: &mut Frame<'_>, area: Rect, newest: &[Record]) {
    let rows = newest.iter().rev().map(|record| {
        vec![
            record::numbers(&record.emission.first, &record.emission.last),
            push0_operate::outcome(&record.emission.outcome),
            record
                .prove_us()
                .map_or(table::NONE.into(), |us| table::span(Duration::from_micros(us))),
            table::span(record.stored_at.since(record.emission.stored_at)),
            record
                .proofs()
                .first()
                .map_or(table::NONE.into(), |proof| proof.prover.to_string()),
        ]
    });
    let header = ["block", "outcome", "prove", "in all", "prover"];
    boxed(frame, area, "newest blocks", &header, rows.collect());
}

/// Draws how full the streams are, three in a row.
fn fill(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let block = Block::new()
        .borders(Borders::ALL)
        .title(" streams: messages, of limit ");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let columns: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3]).areas(inner);
    for (place, column) in columns.into_iter().enumerate() {
        let of = status.streams.iter().skip(place).step_by(3).map(|stream| {
            let percent = (stream.bytes * 100).checked_div(stream.bytes_max).unwrap_or(0);
            let line = Line::from(format!(
                " {:<20} {:>7} {percent:>3} %",
                stream.name, stream.messages
            ));
            if percent >= FULL_PERCENT { line.red() } else { line }
        });
        frame.render_widget(Paragraph::new(of.collect::<Vec<_>>()), column);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{proof, record};
    use push0_domain::Timestamp;
    use push0_domain::message::EmissionOutcome;
    use ratatui::{Terminal, backend::TestBackend};

    #[test]
    fn the_screen_fits_small_terminals_and_shows_the_verdict_first() {
        let status = Status::of_nothing(Timestamp(1_800_000_000_000_000), &["no disk\u{1b}[2J is there"]);
        let records = [record(41, EmissionOutcome::Proved(vec![proof(None)]))];
        for (width, height) in [(120, 40), (80, 24), (20, 5), (1, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
            let screen = Screen {
                status: &status,
                records: &records,
            };
            terminal.draw(|frame| draw(frame, &screen)).expect("drawn");
            let text: String = terminal
                .backend()
                .buffer()
                .content()
                .iter()
                .map(|cell| cell.symbol())
                .collect();
            if width >= 80 {
                assert!(text.starts_with("NOT OK: no disk is there"), "{text}");
                assert!(text.contains("41") && text.contains("proved") && text.contains("newest blocks"));
                for header in ["ingested", "standbys", "outcome", "in all"] {
                    assert!(text.contains(header), "{width}: {header}: {text}");
                }
            }
        }
    }

    #[test]
    fn a_long_problem_is_shown_to_its_end_with_the_number_of_others() {
        let long = format!(
            "the queue is held: {}the cause",
            "no attempt has succeeded ".repeat(4)
        );
        let status = Status::of_nothing(Timestamp(1_800_000_000_000_000), &[&long, "second"]);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
        let screen = Screen {
            status: &status,
            records: &[],
        };
        terminal.draw(|frame| draw(frame, &screen)).expect("drawn");
        let cells = terminal.backend().buffer().content();
        let text: String = cells.iter().map(|cell| cell.symbol()).collect();
        for part in ["the cause", "(and 1 more)", "second"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
