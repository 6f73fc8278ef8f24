//! Tables, and short forms of the values in them.

use comfy_table::{CellAlignment, Table, presets};
use push0_domain::{BlockHash, plain::one_line};
use std::time::Duration;

/// Alignment of a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Renders rows under a header in columns two spaces apart, without lines: easy to read and
/// to process with `cut`.
pub(crate) fn render(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.iter().map(|(name, _)| name.to_uppercase()));
    table.add_rows(
        rows.iter()
            .map(|row| row.iter().map(|cell| one_line(cell)).collect::<Vec<_>>()),
    );
    for (column, (_, align)) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        if *align == Align::Right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// Text of a cell without a value.
pub(crate) const NONE: &str = "-";

/// Returns `0x` and the first 8 hex digits of the hash.
pub(crate) fn short(hash: &BlockHash) -> String {
    hash.to_string().chars().take(10).collect()
}

/// Formats microseconds as milliseconds with one decimal.
pub(crate) fn ms(micros: i64) -> String {
    let tenths = (micros.abs() + 50) / 100;
    let sign = if micros < 0 && tenths > 0 { "-" } else { "" };
    format!("{sign}{}.{}", tenths / 10, tenths % 10)
}

/// Formats bytes in the largest unit with a value of at least one.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (count.checked_ilog2().unwrap_or(0) / 10).min(4);
    let unit = UNITS.get(power as usize).copied().unwrap_or("B");
    if power == 0 {
        return format!("{count} B");
    }
    // One decimal is enough for tables.
    let tenths = u128::from(count) * 10 / (1 << (10 * power));
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// Formats a duration in one unit: `120 ms`, `3.4 s`, `5 min`, `7 h`.
pub(crate) fn span(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1_000 => format!("{millis} ms"),
        millis @ 1_000..120_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        millis @ 120_000..7_200_000 => format!("{} min", millis / 60_000),
        millis => format!("{} h", millis / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short() {
        assert_eq!(
            [ms(0), ms(1_234), ms(-1_250), ms(-4)],
            ["0.0", "1.2", "-1.3", "0.0"]
        );
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(8 << 30)],
            ["0 B", "1023 B", "1.5 KiB", "8.0 GiB"]
        );
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
        let shown = [80, 3_440, 300_000, 7_200_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(shown, ["80 ms", "3.4 s", "5 min", "2 h"]);
        assert_eq!(short(&BlockHash([0xab; 32])), "0xabababab");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "10".into()], vec!["long".into(), "7".into()]];
        let text = render(&[("name", Align::Left), ("n", Align::Right)], &rows);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            ["NAME   N", "a     10", "long   7"]
        );
    }
}
