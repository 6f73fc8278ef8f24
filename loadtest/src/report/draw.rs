//! Curves and lanes, drawn by plotters as SVG without a background. The style sheet colours the text, and
//! the other colours are readable on white and on black.

use crate::stats::round;
use plotters::{
    coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::ops::Range;

/// Red, green and blue of colours that remain distinct for colour-blind readers.
pub(super) const COLOURS: [u32; 8] = [
    0x2f7ed8, 0xd9622b, 0x2e9e62, 0x9467c9, 0xa98600, 0xd64541, 0x4f8a9e, 0x7b8490,
];
const RED: usize = 5;
const GREY: usize = 7;
/// Width of a picture in pixels.
const WIDTH: u32 = 860;

/// Name, colour, whether for comparison only (dashed), and points of a curve.
pub(super) type Curve = (String, usize, bool, Vec<(f64, f64)>);
/// Lane from the top, time, lower and upper edge as fractions of the lane, opacity, and word of a bar.
pub(super) type Bar = (usize, Range<f64>, Range<f64>, f64, String);
type Chart<'a, X, Y> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>;

fn colour(at: usize) -> RGBColor {
    let [_, red, green, blue] = COLOURS[at % COLOURS.len()].to_be_bytes();
    RGBColor(red, green, blue)
}

/// Draws into a chart with these named axes.
fn svg<X, Y>(
    height: u32,
    (x, x_name): (X, &str),
    (y, y_name): (Y, &str),
    draw: impl FnOnce(&mut Chart<'_, X::CoordDescType, Y::CoordDescType>) -> anyhow::Result<()>,
) -> anyhow::Result<String>
where
    X: AsRangedCoord<Value = f64, CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>>,
    Y: AsRangedCoord<Value = f64, CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>>,
{
    let mut out = String::new();
    let area = SVGBackend::with_string(&mut out, (WIDTH, height)).into_drawing_area();
    let mut builder = ChartBuilder::on(&area);
    builder.margin(12).x_label_area_size(44).y_label_area_size(76);
    let mut chart = builder.build_cartesian_2d(x, y)?;
    let (number, font) = (|value: &f64| round(*value).to_string(), ("sans-serif", 15));
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(x_name)
        .x_label_formatter(&number)
        .y_desc(y_name)
        .y_label_formatter(&number);
    mesh.max_light_lines(0)
        .bold_line_style(colour(GREY).mix(0.3))
        .axis_style(colour(GREY));
    if y_name.is_empty() {
        mesh.disable_y_mesh().y_labels(0);
    }
    mesh.label_style(font).axis_desc_style(font).draw()?;
    draw(&mut chart)?;
    area.present()?;
    drop((chart, builder));
    drop(area);
    Ok(out)
}

/// Draws curves over a logarithmic x axis, on which the measured values are the ticks.
pub(super) fn curves(curves: &[Curve], x: &str, y: &str, is_log: bool) -> anyhow::Result<String> {
    let points = || curves.iter().flat_map(|curve| &curve.3);
    let mut ticks: Vec<f64> = points().map(|point| point.0).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    let xs = (
        spread(ticks.iter().copied()).log_scale().with_key_points(ticks),
        x,
    );
    let ys = spread(points().map(|point| point.1));
    if is_log {
        let decades = (-4..6).map(|power| 10_f64.powi(power));
        let ticks = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|n| n * decade));
        let ticks = ticks.filter(|tick| ys.contains(tick)).collect();
        svg(360, xs, (ys.log_scale().with_key_points(ticks), y), |chart| {
            join(curves, chart)
        })
    } else {
        svg(320, xs, (0.0..ys.end, y), |chart| join(curves, chart))
    }
}

/// Returns a range over all these positive values, with some room.
fn spread(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    values.clone().fold(f64::MAX, f64::min) * 0.9..values.fold(0.0, f64::max) * 1.1
}

/// Draws the points of each curve and a line through them.
fn join<X, Y>(curves: &[Curve], chart: &mut Chart<'_, X, Y>) -> anyhow::Result<()>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    for (_, at, is_dashed, points) in curves {
        let (points, line) = (points.iter().copied(), colour(*at).stroke_width(2));
        if *is_dashed {
            chart.draw_series(DashedLineSeries::new(points.clone(), 5, 4, line))?;
        } else {
            chart.draw_series(LineSeries::new(points.clone(), line))?;
        }
        chart.draw_series(points.map(|point| Circle::new(point, 3, colour(*at).filled())))?;
    }
    Ok(())
}

/// Draws bars in named lanes over time, and marked instants.
pub(super) fn lanes(
    names: &[String],
    time: (Range<f64>, &str),
    bars: &[Bar],
    marks: &[(f64, String)],
) -> anyhow::Result<String> {
    let (start, top) = (time.0.start, names.len() as f64 + 0.4);
    let middle = |lane: usize| names.len() as f64 - 0.5 - lane as f64;
    svg(80 + 50 * names.len() as u32, time, (0.0..top, ""), |chart| {
        let lanes = names.iter().enumerate();
        chart.draw_series(lanes.map(|(lane, name)| word((start, middle(lane)), name, HPos::Right)))?;
        chart.draw_series(bars.iter().map(|(lane, time, edges, opacity, _)| {
            let edge = |edge: f64| middle(*lane) - 0.5 + edge;
            let corners = [(time.start, edge(edges.start)), (time.end, edge(edges.end))];
            Rectangle::new(corners, colour(*lane).mix(*opacity).filled())
        }))?;
        let said = bars.iter().filter(|bar| !bar.4.is_empty());
        chart.draw_series(
            said.map(|(lane, time, .., said)| word((time.start, middle(*lane)), said, HPos::Left)),
        )?;
        let line = |at| PathElement::new([(at, 0.0), (at, top)], colour(RED).stroke_width(2));
        chart.draw_series(marks.iter().map(|(at, _)| line(*at)))?;
        chart.draw_series(
            marks
                .iter()
                .map(|(at, said)| word((*at, top - 0.2), said, HPos::Left)),
        )?;
        Ok(())
    })
}

/// Returns a word that begins or ends at a place. Spaces that do not collapse keep the word off the place.
fn word(place: (f64, f64), word: &str, side: HPos) -> Text<'static, (f64, f64), String> {
    let style = TextStyle::from(("sans-serif", 15).into_font()).pos(Pos::new(side, VPos::Center));
    Text::new(format!("\u{a0}{word}\u{a0}"), place, style)
}
