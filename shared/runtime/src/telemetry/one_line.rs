//! Log events on one line each: a text of a participant in an event must not read as an event of its own, nor command a
//! terminal.

use std::fmt::{self, Write as _};

use push0_domain::plain::is_direction;
use tracing::field::Field;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// Writes fields as the default of `tracing_subscriber` does, but for characters that are no plain text.
pub(super) fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(write).delimited(" ")
}

fn write(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    match (field.name(), writer.has_ansi_escapes()) {
        ("message", _) => {}
        (name, false) => write!(writer, "{name}=")?,
        // Slanted, with a faint sign.
        (name, true) => write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?,
    }
    write!(Plain(writer), "{value:?}")
}

/// Escapes line breaks, other control characters and changes of direction.
struct Plain<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Plain<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c != '\t' && (c.is_control() || is_direction(c)) {
                write!(self.0, "{}", c.escape_default())?;
            } else {
                self.0.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(events: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let logs = tracing_subscriber::fmt()
            .fmt_fields(fields())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(logs, events);
        let bytes = written.0.lock().expect("no panic").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_text_of_another_is_no_line_of_its_own_and_no_command_to_a_terminal() {
        let said = "a\n INFO forged\r\u{202e}\u{1b}[2J\tb";
        let text = logged(|| {
            let span = tracing::info_span!("work", %said);
            span.in_scope(|| tracing::warn!(reason = %said, "refused: {said}"));
        });
        let plain = "a\\n INFO forged\\r\\u{202e}\\u{1b}[2J\tb";
        assert_eq!(
            text,
            format!(" WARN work{{said={plain}}}: refused: {plain} reason={plain}\n")
        );
    }

    #[test]
    fn other_values_look_as_ever() {
        let text = logged(|| tracing::info!(count = 7, word = "a \"b\"", at = %"c", "done"));
        assert_eq!(text, " INFO done count=7 word=\"a \\\"b\\\"\" at=c\n");
    }
}
