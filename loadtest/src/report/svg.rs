//! Lines, steps and bars as SVG.

use super::html::escaped;
use std::fmt::Write;

/// Colours that remain distinct for colour-blind readers.
pub(super) const COLOURS: [&str; 8] = [
    "#0b5cad", "#c8541a", "#2a8a57", "#7a4fa3", "#b08900", "#b3261e", "#44748a", "#6b7280",
];

const WIDTH: f64 = 860.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;

/// Mapping of values to an axis.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    /// Linear, between these bounds.
    Even(f64, f64),
    /// Logarithmic, between these bounds.
    Log(f64, f64),
    /// A number of stacked lanes with names instead of values.
    Lanes(usize),
}

impl Scale {
    /// Returns a linear scale from 0 over all these values. [`Self::log`] begins at the least value.
    pub(super) fn even(values: impl Iterator<Item = f64>) -> Self {
        let most = values.fold(f64::MIN_POSITIVE, f64::max);
        Self::Even(0.0, most * 1.05)
    }

    pub(super) fn log(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values
            .filter(|value| *value > 0.0)
            .fold((f64::MAX, f64::MIN_POSITIVE), |(least, most), v| {
                (least.min(v), most.max(v))
            });
        Self::Log(least.min(most) * 0.85, most * 1.15)
    }

    /// Returns the position of a value, from 0 to 1.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Even(from, to) => (value - from) / (to - from),
            Self::Log(from, to) => (value.max(from) / from).ln() / (to / from).ln(),
            Self::Lanes(count) => value / count as f64,
        }
    }

    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Even(from, to) => {
                let rough = (to - from) / 5.0;
                let power = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power);
                let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
                let first = (from / step).ceil() as i64;
                let last = (to / step).floor() as i64;
                (first..=last).map(|n| n as f64 * step).collect()
            }
            Self::Log(from, to) => {
                let decades = from.log10().floor() as i32..=to.log10().ceil() as i32;
                let all = decades.flat_map(|power| [1.0, 2.0, 5.0].map(|n| n * 10_f64.powi(power)));
                all.filter(|value| (from..=to).contains(value)).collect()
            }
            Self::Lanes(_) => Vec::new(),
        }
    }
}

/// A drawing with two axes.
pub(super) struct Chart {
    out: String,
    height: f64,
    x: Scale,
    y: Scale,
}

impl Chart {
    /// Starts a chart. Its ticks on the x axis are the measured values, or round values if there are none.
    pub(super) fn new(
        height: f64,
        (x, x_name, measured): (Scale, &str, &[f64]),
        (y, y_name): (Scale, &str),
    ) -> Self {
        let mut chart = Self {
            out: String::new(),
            height,
            x,
            y,
        };
        let ticks = if measured.is_empty() {
            x.ticks()
        } else {
            measured.to_vec()
        };
        for tick in ticks {
            let at = chart.x(tick);
            chart.line(at, TOP, at, height - BOTTOM, "#e3e7eb");
            chart.text(at, height - BOTTOM + 16.0, "middle", &short(tick));
        }
        for tick in y.ticks() {
            let at = chart.y(tick);
            chart.line(LEFT, at, WIDTH - RIGHT, at, "#e3e7eb");
            chart.text(LEFT - 6.0, at + 4.0, "end", &short(tick));
        }
        chart.text(WIDTH / 2.0, height - 8.0, "middle", x_name);
        let middle = height / 2.0 - 10.0;
        let _ = write!(
            chart.out,
            "<text transform=\"translate(14 {middle:.0}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escaped(y_name)
        );
        chart
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        self.height - BOTTOM - self.y.place(value) * (self.height - BOTTOM - TOP)
    }

    fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, colour: &str) {
        let _ = write!(
            self.out,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
        );
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let _ = write!(
            self.out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(text)
        );
    }

    /// Draws a line through points, with a dot at each. A dashed line is for comparison only.
    pub(super) fn points(&mut self, points: &[(f64, f64)], colour: &str, dashed: bool) {
        let dash = if dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let path: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", self.x(*x), self.y(*y)))
            .collect();
        let _ = write!(
            self.out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
            path.join(" ")
        );
        for (x, y) in points {
            let (x, y) = (self.x(*x), self.y(*y));
            let _ = write!(
                self.out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\" fill=\"{colour}\"/>"
            );
        }
    }

    /// Draws a bar between two values of x and two values of y.
    pub(super) fn bar(
        &mut self,
        (from, to): (f64, f64),
        (low, high): (f64, f64),
        colour: &str,
        opacity: f64,
    ) {
        let (x, y) = (self.x(from), self.y(high));
        let (width, height) = ((self.x(to) - x).max(1.0), (self.y(low) - y).max(0.0));
        let _ = write!(
            self.out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\" \
             fill-opacity=\"{opacity}\"/>"
        );
    }

    /// Draws a vertical line with a word at its top.
    pub(super) fn mark(&mut self, x: f64, word: &str) {
        let at = self.x(x);
        self.line(at, TOP, at, self.height - BOTTOM, "#b3261e");
        self.text(at + 5.0, TOP + 11.0, "start", word);
    }

    /// Writes a word inside the chart, at these values.
    pub(super) fn word(&mut self, x: f64, y: f64, word: &str) {
        let (x, y) = (self.x(x), self.y(y));
        self.text(x + 4.0, y + 4.0, "start", word);
    }

    /// Writes a name in the margin, in place of a tick.
    pub(super) fn lane(&mut self, y: f64, name: &str) {
        let at = self.y(y);
        self.text(LEFT - 6.0, at + 4.0, "end", name);
    }

    pub(super) fn done(self) -> String {
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {}\" width=\"{WIDTH}\" role=\"img\">{}</svg>",
            self.height, self.out
        )
    }
}

/// Returns a legend entry: a name in its colour.
pub(super) fn named(name: &str, colour: &str, dashed: bool) -> String {
    let line = if dashed { "┅" } else { "━" };
    format!(
        "<span style=\"color:{colour};white-space:nowrap\">{line}{line} {}</span> ",
        escaped(name)
    )
}

fn short(value: f64) -> String {
    format!("{}", (value * 1000.0).round() / 1000.0)
}
