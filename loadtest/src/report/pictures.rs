//! The four pictures: latency over load, efficiency over provers, a recovery, and a block.

use super::{
    draw::{self, Bar, COLOURS, Curve},
    html::escaped,
    results::{Line, Results, has, lines, number},
};
use anyhow::Context as _;
use serde_json::{Value, from_value, json};
use std::collections::BTreeMap;

/// Title, legend as HTML, and SVG of a picture.
pub(super) type Picture = (&'static str, String, String);

/// Returns the pictures for which results exist.
pub(super) fn all(results: &Results) -> anyhow::Result<Vec<Picture>> {
    let drawn = [
        latency(lines(results, "overhead")),
        efficiency(lines(results, "scaling")),
        lines(results, "timeline").first().map(recovery).transpose(),
        lines(results, "gantt").first().map(block).transpose(),
    ];
    drawn.into_iter().filter_map(Result::transpose).collect()
}

fn latency(lines: &[Line]) -> anyhow::Result<Option<Picture>> {
    let curve = |name: &str, colour, field: &str, verify: bool, rtt: u32| {
        let wanted = json!({ "verify": verify, "added_rtt_ms": rtt });
        let of = lines.iter().filter(|line| has(line, &wanted));
        let points = of.filter_map(|line| Some((number(line, "rate")?, number(line, field)?)));
        (name.into(), colour, field.starts_with("floor"), points.collect())
    };
    let all = vec![
        curve("p50", 0, "p50_ms", false, 0),
        curve("p50 of the floor", 0, "floor_p50_ms", false, 0),
        curve("p99", 1, "p99_ms", false, 0),
        curve("p99 of the floor", 1, "floor_p99_ms", false, 0),
        curve("p50, verified", 2, "p50_ms", true, 0),
        curve("p50, 1 ms added", 3, "p50_ms", false, 1),
        curve("its floor", 3, "floor_p50_ms", false, 1),
        curve("p50, 2 ms added", 4, "p50_ms", false, 2),
        curve("its floor", 4, "floor_p50_ms", false, 2),
    ];
    curves(
        "Latency over load",
        all,
        "blocks a second",
        "overhead of a block, ms",
        true,
    )
}

fn efficiency(lines: &[Line]) -> anyhow::Result<Option<Picture>> {
    let mut by_time: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for line in lines
        .iter()
        .filter(|line| !has(line, &json!({ "ahead": "always" })))
    {
        let field = |field: &str| number(line, field).with_context(|| format!("scaling without {field}"));
        let points = by_time.entry(field("prove_ms")? as u64).or_default();
        points.push((field("provers")?, field("efficiency")? * 100.0));
    }
    let each = by_time.into_iter().enumerate();
    let each = each.map(|(at, (time, points))| (format!("proofs of {time} ms"), at, false, points));
    curves(
        "Efficiency over provers",
        each.collect(),
        "provers",
        "busy, %",
        false,
    )
}

/// Draws the curves that have points, each with its name in the legend.
fn curves(
    title: &'static str,
    mut all: Vec<Curve>,
    x: &str,
    y: &str,
    is_log: bool,
) -> anyhow::Result<Option<Picture>> {
    for (.., points) in &mut all {
        points.retain(|(x, y)| *x > 0.0 && *y > 0.0);
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    all.retain(|(.., points)| !points.is_empty());
    let named = |(name, colour, is_dashed, _): &Curve| {
        let (line, colour) = (
            if *is_dashed { "┅┅" } else { "━━" },
            COLOURS[colour % COLOURS.len()],
        );
        let name = escaped(name);
        format!("<span class=\"name\"><b style=\"color:#{colour:06x}\">{line}</b> {name}</span> ")
    };
    if all.is_empty() {
        return Ok(None);
    }
    let legend = all.iter().map(named).collect();
    Ok(Some((title, legend, draw::curves(&all, x, y, is_log)?)))
}

fn recovery(line: &Line) -> anyhow::Result<Picture> {
    let line = Value::Object(line.clone());
    let series: BTreeMap<String, Vec<(f64, f64)>> = from_value(line["series"].clone())?;
    let (slots, killed): (f64, String) = from_value(json!([line["slots"], line["killed"]]))?;
    let (down, back): (f64, f64) = from_value(json!([line["killed_ms"], line["back_ms"]]))?;
    let last = series.values().flatten().map(|step| step.0).fold(back, f64::max);
    let bars = series.values().enumerate().flat_map(|(lane, steps)| {
        let ends = steps.iter().skip(1).map(|next| next.0).chain([last]);
        let bar = move |((from, running), end): (&(f64, f64), f64)| -> Bar {
            (
                lane,
                from / 1e3..end / 1e3,
                0.0..running / slots * 0.9,
                0.75,
                String::new(),
            )
        };
        steps.iter().zip(ends).map(bar)
    });
    let bars: Vec<Bar> = bars.collect();
    let names: Vec<String> = series.keys().cloned().collect();
    let marks = [
        (down / 1e3, format!("{killed} killed")),
        (back / 1e3, "started again".into()),
    ];
    let legend = format!(
        "Running attempts of each prover, of {slots} slots, from its heartbeats. The tasks of {killed} begin \
         elsewhere within a second; the other provers work at their limit until {killed} is back."
    );
    let svg = draw::lanes(&names, (0.0..last / 1e3, "seconds"), &bars, &marks)?;
    Ok(("A recovery", escaped(&legend), svg))
}

fn block(line: &Line) -> anyhow::Result<Picture> {
    let spans = line.get("spans").cloned().unwrap_or_default();
    let spans: Vec<(String, String, f64, f64, f64)> = from_value(spans)?;
    let last = spans.iter().map(|span| span.4).fold(f64::MIN_POSITIVE, f64::max);
    let (mut names, mut bars) = (Vec::new(), Vec::<Bar>::new());
    for (who, what, released, began, ended) in spans {
        let lane = names.iter().position(|name| *name == who).unwrap_or(names.len());
        if lane == names.len() {
            names.push(who);
        }
        // A word that does not fit would cover the next bar.
        let fits = ended - began > last * 0.055 || ended >= last;
        let word = if fits { what } else { String::new() };
        // An instant is a bar that can be seen.
        let ended = ended.max(began + last * 0.002);
        bars.push((lane, released..began, 0.46..0.54, 0.5, String::new()));
        bars.push((lane, began..ended, 0.16..0.84, 0.75, word));
    }
    let legend = "Attempts of the block's tasks by process and time, from the messages as they pass. A thin line is \
                  a task that was released and waits for its prover.";
    let time = (0.0..last * 1.09, "ms since the block passed");
    Ok(("A block", legend.into(), draw::lanes(&names, time, &bars, &[])?))
}
