//! The tree of a trace: the guarantees for its reader.

use std::collections::{BTreeMap, BTreeSet};

/// A span as a receiver has it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) service: String,
    pub(super) name: String,
    pub(super) trace: String,
    pub(super) id: String,
    /// Id of the parent span; empty for a root.
    pub(super) parent: String,
    pub(super) start_us: u64,
    pub(super) end_us: u64,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) is_error: bool,
    pub(super) events: Vec<String>,
    /// Trace and span of each link.
    pub(super) links: Vec<(String, String)>,
    /// Jaeger's warnings about the span.
    pub(super) warnings: Vec<String>,
}

impl Seen {
    pub(super) fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.get(key).map(String::as_str)
    }
}

/// The spans of one trace.
#[derive(Clone, Debug)]
pub(super) struct Tree(pub(super) Vec<Seen>);

impl Tree {
    /// Returns why a reader cannot rely on the trace; `None` if a reader can.
    pub(super) fn flaw(&self) -> Option<String> {
        let ids: BTreeMap<&str, &Seen> = self.0.iter().map(|span| (&*span.id, span)).collect();
        if ids.len() != self.0.len() {
            return Some(format!("two spans have one id: {:#?}", self.lines()));
        }
        let roots = self.0.iter().filter(|span| span.parent.is_empty()).count();
        if roots != 1 {
            return Some(format!("{roots} roots: {:#?}", self.lines()));
        }
        for span in self.0.iter().filter(|span| !span.parent.is_empty()) {
            let Some(parent) = ids.get(&*span.parent) else {
                return Some(format!("no parent of {}: {:#?}", span.name, self.lines()));
            };
            if span.start_us < parent.start_us || span.end_us > parent.end_us {
                return Some(format!(
                    "{} sticks out of {}: {:#?}",
                    span.name,
                    parent.name,
                    self.lines()
                ));
            }
        }
        let told = self.told();
        if told < 0.9 {
            return Some(format!("leaves tell {told:.3} of the root: {:#?}", self.lines()));
        }
        let warned = self.0.iter().find(|span| !span.warnings.is_empty());
        warned.map(|span| format!("{}: {:?} in {:#?}", span.name, span.warnings, self.lines()))
    }

    pub(super) fn root(&self) -> &Seen {
        let root = self.0.iter().find(|span| span.parent.is_empty());
        root.expect("a trace has a root")
    }

    /// Returns the share of the root that lies under leaves.
    pub(super) fn told(&self) -> f64 {
        let parents: BTreeSet<&str> = self.0.iter().map(|span| &*span.parent).collect();
        let leaves = self.0.iter().filter(|span| !parents.contains(&*span.id));
        let mut leaves: Vec<(u64, u64)> = leaves.map(|leaf| (leaf.start_us, leaf.end_us)).collect();
        leaves.sort_unstable();
        let root = self.root();
        let (mut at, mut sum) = (root.start_us, 0);
        for (start, end) in leaves {
            sum += end.saturating_sub(start.max(at));
            at = at.max(end);
        }
        sum as f64 / root.end_us.saturating_sub(root.start_us).max(1) as f64
    }

    pub(super) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Seen> + use<'a> {
        self.0.iter().filter(move |span| span.name == name)
    }

    /// Returns whether there are so many spans of each name.
    pub(super) fn has(&self, wanted: &[(&str, usize)]) -> bool {
        wanted
            .iter()
            .all(|(name, count)| self.named(name).count() >= *count)
    }

    /// Returns the only span of a name.
    #[track_caller]
    pub(super) fn one<'a>(&'a self, name: &'a str) -> &'a Seen {
        let found: Vec<&Seen> = self.named(name).collect();
        assert_eq!(found.len(), 1, "{name} in {:#?}", self.lines());
        found[0]
    }

    /// Returns the names from the root down to a span.
    pub(super) fn path(&self, span: &Seen) -> String {
        let parent = self.0.iter().find(|other| other.id == span.parent);
        match parent {
            Some(parent) => format!("{} > {}", self.path(parent), span.name),
            None => span.name.clone(),
        }
    }

    /// Returns one line for each span, in the order of time.
    pub(super) fn lines(&self) -> Vec<String> {
        let from = self.0.iter().map(|span| span.start_us).min().unwrap_or_default();
        let mut spans: Vec<&Seen> = self.0.iter().collect();
        spans.sort_by_key(|span| (span.start_us, u64::MAX - span.end_us));
        let line = |span: &&Seen| {
            format!(
                "{:>9} .. {:>9} us {} [{}]{}",
                span.start_us - from,
                span.end_us.saturating_sub(from),
                self.path(span),
                span.service.trim_start_matches("push0-"),
                if span.is_error { " ERROR" } else { "" },
            )
        };
        spans.iter().map(line).collect()
    }
}
