//! `target/bench/report.md` and `report.html`: the newest result of each kind, as tables and plots.

mod bars;
mod draw;
mod html;
mod pictures;
mod results;
mod table;

use crate::record;
use html::escaped;
use results::{KEYS, Line, Results, lines};
use serde_json::Value;
use std::{fmt::Write, fs};

/// Writes both reports from the results so far.
pub(crate) fn write() -> anyhow::Result<()> {
    let path = record::results();
    let newest = newest(&fs::read_to_string(&path)?);
    fs::write(path.with_file_name("report.md"), markdown(&newest))?;
    fs::write(path.with_file_name("report.html"), page(&newest)?)?;
    Ok(())
}

/// Keeps the last line of each scenario and variant.
fn newest(lines: &str) -> Results {
    let mut found = Results::new();
    for line in lines.lines() {
        let Ok(Value::Object(line)) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let scenario = line.get("scenario").map(table::text).unwrap_or_default();
        let at = found.iter().position(|(name, _)| *name == scenario);
        let at = at.unwrap_or_else(|| {
            found.push((scenario, Vec::new()));
            found.len() - 1
        });
        let known = &mut found[at].1;
        match known.iter_mut().find(|known| is_same_variant(known, &line)) {
            Some(known) => *known = line,
            None => known.push(line),
        }
    }
    found
}

/// Returns whether two results of a scenario have the same keys and the same fields. The fields count,
/// because a comparison has results of several kinds.
fn is_same_variant(one: &Line, other: &Line) -> bool {
    KEYS.iter().all(|key| one.get(*key) == other.get(*key)) && table::shape(one) == table::shape(other)
}

/// Describes the run of the results in a sentence.
fn about(results: &Results) -> String {
    let first = results.iter().find_map(|(_, lines)| lines.first());
    let said = |line: Option<&Line>, field: &str| line?.get(field).map(table::text);
    let run = |field: &str| said(first, field).unwrap_or_default();
    let machine = |field: &str| said(lines(results, "machine").first(), field);
    let mut about = format!("Profile {}, seed {}.", run("profile"), run("seed"));
    if let (Some(cores), Some(processor)) = (machine("cores"), machine("processor")) {
        let load = machine("load_average").unwrap_or_default();
        let _ = write!(
            about,
            " {cores} cores ({processor}), load average {load} at the start."
        );
    }
    about
}

fn markdown(results: &Results) -> String {
    let mut out = format!("# push0: load test\n\n{}\n", about(results));
    let mut part = |title: &str, table: &table::Table| {
        if !table.rows.is_empty() {
            let _ = write!(out, "\n## {title}\n\n{}", table.markdown());
        }
    };
    part("Bars", &bars::table(results));
    for (scenario, lines) in results {
        table::parts(lines).iter().for_each(|table| part(scenario, table));
    }
    out
}

fn page(results: &Results) -> anyhow::Result<String> {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>push0 load test</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\"><style>\n{}</style>\n\
         <h1>push0: load test</h1><p>{}</p>\n",
        include_str!("style.css"),
        escaped(&about(results))
    );
    let bars = bars::table(results);
    if !bars.rows.is_empty() {
        write!(out, "<h2>Bars</h2>{}", bars.html())?;
    }
    for (title, legend, svg) in pictures::all(results)? {
        writeln!(out, "<h2>{title}</h2><p>{legend}</p>\n{svg}")?;
    }
    for (scenario, lines) in results {
        let tables: String = table::parts(lines).iter().map(table::Table::html).collect();
        if !tables.is_empty() {
            write!(out, "<h2>{}</h2>{tables}", escaped(scenario))?;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"{"scenario":"overhead","seed":1,"profile":"quick","rate":20.0,"verify":false,"added_rtt_ms":0,"p50_ms":3.0,"p99_ms":7.0,"floor_p50_ms":1.0,"ratio_p50":3.0}
{"scenario":"overhead","seed":1,"profile":"quick","rate":20.0,"verify":false,"added_rtt_ms":0,"p50_ms":2.5,"p99_ms":7.0,"floor_p50_ms":2.0,"ratio_p50":1.25}
not a result
{"scenario":"brokers","seed":1,"profile":"quick","fault":"frozen","leads":"meta","lost":7}
{"scenario":"brokers","seed":1,"profile":"quick","fault":"killed","leads":"meta","lost":0}
{"scenario":"incidents","seed":1,"profile":"quick","trial":"outage","dead":0,"lag_s":1.5}
{"scenario":"incidents","seed":1,"profile":"quick","trial":"kills","dead":1,"lag_s":2.5}
{"scenario":"scaling","seed":1,"profile":"quick","provers":32,"prove_ms":100,"efficiency":0.97}
{"scenario":"timeline","seed":1,"profile":"quick","killed":"p1","killed_ms":300,"back_ms":900,"slots":2,"series":{"p1":[[0,2],[300,0]],"p2":[[0,1],[800,2]]}}
{"scenario":"gantt","seed":1,"profile":"quick","spans":[["p1","prove <0>",1.0,2.0,9.0]]}
"#;

    #[test]
    fn the_newest_result_of_each_kind_is_shown_and_judged() {
        let shown = markdown(&newest(LINES));
        assert!(shown.contains("| 2.5 |") && !shown.contains("| 3 |"), "{shown}");
        assert!(
            shown.contains("| overhead at 20/s, p50 over the floor's | ≤ 1.3 | 1.25 | met |"),
            "{shown}"
        );
        assert!(
            shown.contains("| frozen | meta | 7 |\n| killed | meta | 0 |"),
            "{shown}"
        );
        assert!(
            shown.contains("| outage | 0 | 1.5 |\n| kills | 1 | 2.5 |"),
            "{shown}"
        );
        for bar in [
            "outage: dead blocks | ≤ 0 | 0 | met |",
            "kills: dead blocks | ≤ 0 | 1 | missed |",
        ] {
            assert!(shown.contains(bar), "{shown}");
        }
        assert!(
            shown.contains("| 32 provers, 100 ms | ≥ 0.98 | 0.97 | missed |"),
            "{shown}"
        );
    }

    #[test]
    fn the_page_is_whole_without_anything_beside_it() {
        let page = page(&newest(LINES)).unwrap();
        assert_eq!(page.matches("<svg").count(), 4, "{page}");
        assert!(
            page.contains("prove &lt;0") && !page.contains("prove <0"),
            "{page}"
        );
        for outside in ["<script", "src=", "href=", "NaN", "inf"] {
            assert!(!page.contains(outside), "{outside}: {page}");
        }
    }
}
