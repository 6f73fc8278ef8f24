//! `target/bench/report.md` and `report.html`: the newest result of each kind, as tables and plots.

mod bars;
mod html;
mod pictures;
mod results;
mod svg;
mod table;

use crate::record;
use html::escaped;
use results::{KEYS, Line, Results, lines, text};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write, fs};

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;color:#1c2530;margin:2em auto;max-width:64em;padding:0 1em}\
    h1{font-size:1.6em}h2{font-size:1.2em;margin:2em 0 .4em;border-bottom:1px solid #d4dae1;padding-bottom:.2em}\
    p{margin:.4em 0;color:#4a5663}.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px;margin:.6em 0}\
    th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #e6eaee;white-space:nowrap;\
    font-variant-numeric:tabular-nums}th{font-weight:600;background:#f4f6f8}td:first-child,th:first-child{text-align:left}\
    .met{color:#17713b}.missed{color:#b3261e;font-weight:600}svg{max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:#4a5663}";

/// Writes both reports from the results so far.
pub(crate) fn write() -> anyhow::Result<()> {
    let path = record::results();
    let newest = newest(&fs::read_to_string(&path)?);
    fs::write(path.with_file_name("report.md"), markdown(&newest)?)?;
    fs::write(path.with_file_name("report.html"), html(&newest)?)?;
    Ok(())
}

/// Keeps the last line of each scenario and variant.
fn newest(lines: &str) -> Results {
    let mut found = Results::new();
    let mut places: BTreeMap<(String, String), (usize, usize)> = BTreeMap::new();
    for line in lines.lines() {
        let Ok(Value::Object(line)) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let scenario = line
            .get("scenario")
            .and_then(Value::as_str)
            .unwrap_or("?")
            .to_owned();
        let at = found.iter().position(|(name, _)| *name == scenario);
        let at = at.unwrap_or_else(|| {
            found.push((scenario.clone(), Vec::new()));
            found.len() - 1
        });
        let lines = &mut found[at].1;
        match places.get(&(scenario.clone(), variant(&line))) {
            Some((at, row)) => found[*at].1[*row] = line,
            None => {
                places.insert((scenario, variant(&line)), (at, lines.len()));
                lines.push(line);
            }
        }
    }
    found
}

/// Returns the identity of a variant. The names of the fields are part of it, because a comparison has
/// results of several kinds.
fn variant(line: &Line) -> String {
    let mut parts: Vec<String> = KEYS
        .iter()
        .filter_map(|key| Some(format!("{key}={}", text(line.get(*key)?))))
        .collect();
    parts.push(table::shape(line));
    parts.join(",")
}

/// Describes the run of the results in a sentence.
fn about(results: &Results) -> String {
    let first = results.iter().find_map(|(_, lines)| lines.first());
    let said = |field: &str| {
        first
            .and_then(|line| line.get(field))
            .map(text)
            .unwrap_or_default()
    };
    let mut about = format!("Profile {}, seed {}.", said("profile"), said("seed"));
    if let Some(machine) = lines(results, "machine").first() {
        let said = |field: &str| machine.get(field).map(text).unwrap_or_default();
        let _ = write!(
            about,
            " {} cores ({}), load average {} at the start.",
            said("cores"),
            said("processor"),
            said("load_average")
        );
    }
    about
}

fn markdown(results: &Results) -> Result<String, std::fmt::Error> {
    let mut out = format!("# push0: load test\n\n{}\n", about(results));
    let judged = bars::judged(results);
    if !judged.is_empty() {
        writeln!(out, "\n## Bars\n\n| what | bar | measured | |\n|---|---|---|---|")?;
        for bar in judged {
            writeln!(
                out,
                "| {} | {} | {} | {} |",
                bar.what,
                bar.limit,
                bar.measured,
                bar.verdict()
            )?;
        }
    }
    for (scenario, lines) in results {
        for part in table::parts(lines) {
            writeln!(out, "\n## {scenario}\n\n{}", part.markdown())?;
        }
    }
    Ok(out)
}

fn html(results: &Results) -> Result<String, std::fmt::Error> {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>push0 load test</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style>\
         <h1>push0: load test</h1><p>{}</p>\n",
        escaped(&about(results))
    );
    let judged = bars::judged(results);
    if !judged.is_empty() {
        out.push_str("<h2>Bars</h2><table><tr><th>what<th>bar<th>measured<th>\n");
        for bar in judged {
            let verdict = bar.verdict();
            writeln!(
                out,
                "<tr><td>{}<td>{}<td>{}<td class=\"{verdict}\">{verdict}",
                escaped(&bar.what),
                escaped(&bar.limit),
                escaped(&bar.measured)
            )?;
        }
        out.push_str("</table>\n");
    }
    for picture in pictures::all(results) {
        writeln!(
            out,
            "<h2>{}</h2><p>{}</p>{}",
            picture.title, picture.legend, picture.svg
        )?;
    }
    for (scenario, lines) in results {
        for (at, part) in table::parts(lines).into_iter().enumerate() {
            if at == 0 {
                writeln!(out, "<h2>{}</h2>", escaped(scenario))?;
            }
            writeln!(out, "<div class=\"scroll\">{}</div>", part.html())?;
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
{"scenario":"scaling","seed":1,"profile":"quick","provers":32,"prove_ms":100,"efficiency":0.97}
{"scenario":"timeline","seed":1,"profile":"quick","killed":"p1","killed_ms":300,"back_ms":900,"slots":2,"series":{"p1":[[0,2],[300,0]],"p2":[[0,1],[800,2]]}}
{"scenario":"gantt","seed":1,"profile":"quick","spans":[["p1","prove <0>",1.0,2.0,9.0]]}
"#;

    #[test]
    fn the_newest_result_of_each_kind_is_shown_and_judged() {
        let shown = markdown(&newest(LINES)).unwrap();
        assert!(shown.contains("| 2.5 |") && !shown.contains("| 3 |"), "{shown}");
        assert!(
            shown.contains("| overhead at 20/s, p50 over the floor's | ≤ 1.3 | 1.25 | met |"),
            "{shown}"
        );
        assert!(
            shown.contains("| 32 provers, 100 ms | ≥ 0.98 | 0.97 | missed |"),
            "{shown}"
        );
    }

    #[test]
    fn the_page_is_whole_without_anything_beside_it() {
        let page = html(&newest(LINES)).unwrap();
        assert_eq!(page.matches("<svg").count(), 4, "{page}");
        assert!(page.contains("prove &lt;0>"), "{page}");
        for outside in ["<script", "src=", "href=", "NaN", "inf"] {
            assert!(!page.contains(outside), "{outside}: {page}");
        }
    }
}
