//! The four pictures: latency over load, efficiency over provers, a recovery, and a block.

use super::{
    results::{Line, Results, has, lines, number},
    svg::{COLOURS, Chart, Scale, named},
};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) struct Picture {
    pub(super) title: &'static str,
    pub(super) legend: String,
    pub(super) svg: String,
}

/// Returns the pictures for which results exist.
pub(super) fn all(results: &Results) -> Vec<Picture> {
    let drawn = [
        latency(lines(results, "overhead")),
        efficiency(lines(results, "scaling")),
        lines(results, "timeline").first().and_then(recovery),
        lines(results, "gantt").first().and_then(block),
    ];
    drawn.into_iter().flatten().collect()
}

/// Name, colour, whether dashed, and points of a curve.
type Curve = (String, &'static str, bool, Vec<(f64, f64)>);

fn curves(all: Vec<Curve>, height: f64, x: (&str, bool), y: (&str, bool)) -> Option<(String, String)> {
    let points = || all.iter().flat_map(|(.., points)| points.iter());
    points().next()?;
    let scale = |log, values: &dyn Fn() -> Vec<f64>| {
        let values = values().into_iter();
        if log {
            Scale::log(values)
        } else {
            Scale::even(values)
        }
    };
    let xs = scale(x.1, &|| points().map(|p| p.0).collect());
    let ys = scale(y.1, &|| points().map(|p| p.1).collect());
    let mut measured: Vec<f64> = points().map(|p| p.0).collect();
    measured.sort_by(f64::total_cmp);
    measured.dedup();
    let mut chart = Chart::new(height, (xs, x.0, &measured), (ys, y.0));
    let mut legend = String::new();
    for (name, colour, dashed, points) in &all {
        if !points.is_empty() {
            chart.points(points, colour, *dashed);
            legend.push_str(&named(name, colour, *dashed));
        }
    }
    Some((legend, chart.done()))
}

fn latency(lines: &[Line]) -> Option<Picture> {
    let line = |field: &str, verify: &str, rtt: &str| {
        let wanted = [("verify", verify), ("added_rtt_ms", rtt)];
        let of = lines.iter().filter(|line| has(line, &wanted));
        let mut points: Vec<_> = of
            .filter_map(|line| Some((number(line, "rate")?, number(line, field)?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let (p50, p99) = ("p50_ms", "p99_ms");
    let curve =
        |name: &str, colour: usize, dashed, points| (name.to_owned(), COLOURS[colour], dashed, points);
    let all = vec![
        curve("p50", 0, false, line(p50, "false", "0")),
        curve("p50 of the floor", 0, true, line("floor_p50_ms", "false", "0")),
        curve("p99", 1, false, line(p99, "false", "0")),
        curve("p99 of the floor", 1, true, line("floor_p99_ms", "false", "0")),
        curve("p50, verified", 2, false, line(p50, "true", "0")),
        curve("p50, 1 ms added", 3, false, line(p50, "false", "1")),
        curve("its floor", 3, true, line("floor_p50_ms", "false", "1")),
        curve("p50, 2 ms added", 4, false, line(p50, "false", "2")),
        curve("its floor", 4, true, line("floor_p50_ms", "false", "2")),
    ];
    let (legend, svg) = curves(
        all,
        360.0,
        ("blocks a second", true),
        ("overhead of a block, ms", true),
    )?;
    Some(Picture {
        title: "Latency over load",
        legend,
        svg,
    })
}

fn efficiency(lines: &[Line]) -> Option<Picture> {
    let mut by_time: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for line in lines.iter().filter(|line| !has(line, &[("ahead", "always")])) {
        let point = (number(line, "provers")?, number(line, "efficiency")? * 100.0);
        by_time
            .entry(number(line, "prove_ms")? as u64)
            .or_default()
            .push(point);
    }
    let each = by_time
        .into_iter()
        .zip(COLOURS)
        .map(|((time, mut points), colour)| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            (format!("proofs of {time} ms"), colour, false, points)
        });
    let (legend, svg) = curves(each.collect(), 300.0, ("provers", true), ("busy, %", false))?;
    Some(Picture {
        title: "Efficiency over provers",
        legend,
        svg,
    })
}

fn recovery(line: &Line) -> Option<Picture> {
    let series = line.get("series")?.as_object()?;
    let slots = number(line, "slots")?;
    let point = |step: &Value| Some((step.get(0)?.as_f64()? / 1000.0, step.get(1)?.as_f64()?));
    let steps = |steps: &Value| -> Vec<(f64, f64)> {
        steps.as_array().into_iter().flatten().filter_map(point).collect()
    };
    let last = series
        .values()
        .flat_map(steps)
        .map(|step| step.0)
        .fold(0.0, f64::max);
    let lanes = series.len() as f64;
    let mut chart = Chart::new(
        70.0 + 62.0 * lanes,
        (Scale::Even(0.0, last), "seconds", &[]),
        (Scale::Lanes(series.len()), ""),
    );
    for (lane, (prover, series)) in series.iter().enumerate() {
        let floor = lanes - 1.0 - lane as f64;
        let steps = steps(series);
        let ends = steps.iter().skip(1).map(|next| next.0).chain([last]);
        for ((from, running), to) in steps.iter().zip(ends) {
            chart.bar(
                (*from, to),
                (floor, floor + running / slots * 0.9),
                COLOURS[lane % COLOURS.len()],
                0.75,
            );
        }
        chart.lane(floor + 0.35, prover);
    }
    let killed = line.get("killed")?.as_str()?;
    chart.mark(number(line, "killed_ms")? / 1000.0, &format!("{killed} killed"));
    chart.mark(number(line, "back_ms")? / 1000.0, "started again");
    Some(Picture {
        title: "A recovery",
        legend: format!(
            "Running attempts of each prover, of {slots} slots, from its heartbeats. The tasks of {killed} begin \
             elsewhere within a second; the other provers work at their limit until {killed} is back."
        ),
        svg: chart.done(),
    })
}

fn block(line: &Line) -> Option<Picture> {
    let spans = line.get("spans")?.as_array()?;
    let text = |span: &Value, at: usize| Some(span.get(at)?.as_str()?.to_owned());
    let time = |span: &Value, at: usize| span.get(at)?.as_f64();
    let mut lanes: Vec<String> = Vec::new();
    for span in spans {
        let who = text(span, 0)?;
        if !lanes.contains(&who) {
            lanes.push(who);
        }
    }
    let last = spans.iter().filter_map(|span| time(span, 4)).fold(0.0, f64::max);
    let count = lanes.len() as f64;
    let mut chart = Chart::new(
        70.0 + 34.0 * count,
        (Scale::Even(0.0, last * 1.06), "ms since the block passed", &[]),
        (Scale::Lanes(lanes.len()), ""),
    );
    for (lane, who) in lanes.iter().enumerate() {
        let floor = count - 1.0 - lane as f64;
        chart.lane(floor + 0.5, who);
        for span in spans.iter().filter(|span| text(span, 0).as_ref() == Some(who)) {
            let (released, began, ended) = (time(span, 2)?, time(span, 3)?, time(span, 4)?);
            let colour = COLOURS[lane % COLOURS.len()];
            chart.bar((released, began), (floor + 0.42, floor + 0.5), colour, 0.4);
            chart.bar((began, ended), (floor + 0.16, floor + 0.84), colour, 0.75);
            // A word that does not fit would cover the next bar.
            if ended - began > last * 0.055 || ended >= last {
                chart.word(began, floor + 0.5, &text(span, 1)?);
            }
        }
    }
    Some(Picture {
        title: "A block",
        legend: "Attempts of the block's tasks by process and time, from the messages as they pass. A thin line is a task \
                 that was released and waits for its prover."
            .into(),
        svg: chart.done(),
    })
}
