//! `push0 dead show ID`: shows one dead letter.

use super::selection::One;
use crate::context::Context;
use crate::failure::Failure;
use crate::table::{self, Align};
use crate::{output, record, times};
use push0_bus::{Bus, now};
use push0_domain::message::{AttemptRecord, Dead, DeadLetter};
use push0_domain::plain::one_line;
use push0_domain::trace::TraceContext;
use push0_operate::letters;
use std::time::Duration;

pub(super) async fn run(context: &Context, bus: &Bus, one: &One) -> Result<(), Failure> {
    for place in letters::find(bus, &one.which(bus).await?).await? {
        let Some(kept) = letters::read(bus, &place).await? else {
            continue;
        };
        let letter = kept.body?;
        if context.json {
            output::json(&letter)?;
        } else {
            output::line(&render(&letter, &kept.trace))?;
        }
    }
    Ok(())
}

fn render(letter: &DeadLetter, trace: &TraceContext) -> String {
    let mut lines = vec![
        format!("id:      {}", one_line(&letter.id)),
        format!("reason:  {}", one_line(&letter.reason)),
        format!("at:      {}", times::with_age(letter.at, now())),
    ];
    if let Some(id) = record::trace_id(trace) {
        lines.push(format!("trace:   {id}"));
    }
    match &letter.what {
        Dead::Message {
            stream,
            subject,
            sequence,
            body,
        } => {
            lines.push(format!(
                "message: {sequence} of {}, subject {}",
                one_line(stream),
                one_line(subject)
            ));
            lines.push(format!("body:    {}", readable(body)));
        }
        Dead::Task { retry, history } => {
            let of = format!(
                "{} task(s) from index {} of {}",
                retry.tasks.count, retry.tasks.first, retry.tasks.of
            );
            lines.push(format!("task:    {}, {of}", retry.stage));
            lines.push(format!("inputs:  {}", retry.inputs.count()));
            lines.push(String::new());
            lines.push(attempts(history));
        }
    }
    lines.join("\n")
}

fn attempts(history: &[AttemptRecord]) -> String {
    let columns = [
        ("attempt", Align::Right),
        ("prover", Align::Left),
        ("ended at", Align::Left),
        ("ran", Align::Right),
        ("failure", Align::Left),
        ("message", Align::Left),
    ];
    let rows: Vec<Vec<String>> = history
        .iter()
        .map(|record| {
            vec![
                record.attempt.to_string(),
                record.prover.to_string(),
                times::local(record.ended_at, now()),
                table::span(Duration::from_micros(record.prove_us)),
                record.failure.class.as_str().into(),
                record.failure.message.clone(),
            ]
        })
        .collect();
    table::render(&columns, &rows)
}

/// Returns the bytes as text if they are printable UTF-8, else as hex digits.
fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(|c: char| c.is_control() && !c.is_whitespace()) => text.to_owned(),
        _ => format!("0x{}", hex::encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_shown_as_text_only_if_it_is_text() {
        assert_eq!(readable(b"{\"a\": 1}\n"), "{\"a\": 1}\n");
        assert_eq!(readable(&[0x1b, b'[', b'2', b'J']), "0x1b5b324a");
        assert_eq!(readable(&[0xff]), "0xff");
    }
}
