//! Checks of a pipeline's proofs: the stages, and whether each can read the outputs of the one before it.

use super::{Checker, Setting};
use crate::message::StageKind;
use crate::pipeline::file::{ProofTable, RetryTable, StageTable};
use crate::pipeline::{Policy, ProofSpec, RANGE_MAX, STAGES_MAX, Stage};
use crate::retry::{ATTEMPTS_DEFAULT, DEATHS_DEFAULT, Retry};
use crate::{StageName, ZkvmId};
use std::{ops::Range, time::Duration};
use toml::Spanned;

impl Checker<'_> {
    pub(super) fn proof(
        &mut self,
        span: &Range<usize>,
        table: ProofTable,
        setting: &Setting<'_>,
    ) -> Option<ProofSpec> {
        let proof_type = self.id(&table.proof_type);
        let zkvm: Option<ZkvmId> = self.id(&table.zkvm);
        if table.stage.is_empty() || table.stage.len() > STAGES_MAX {
            self.issue(
                span,
                format!(
                    "{} [[proof.stage]] tables: expected 1 to {STAGES_MAX}",
                    table.stage.len()
                ),
            );
        }
        let names: Vec<String> = table
            .stage
            .iter()
            .map(|s| s.as_ref().name.as_ref().clone())
            .collect();
        let mut stages: Vec<Stage> = Vec::new();
        let mut many = false;
        let mut ranges = 0;
        for (position, stage) in table.stage.into_iter().enumerate() {
            let span = stage.span();
            self.from(&names, position, stage.as_ref());
            if stage.as_ref().kind == StageKind::Range {
                ranges += 1;
                self.range(&span, position, ranges, setting);
            }
            let checked = self.stage(&span, stage.into_inner(), zkvm.as_ref(), setting.policy);
            if let Some(stage) = checked {
                many = self.shape(&span, &stage, many);
                stages.push(stage);
            }
        }
        if let Some(Policy::Deadline { within }) = setting.policy {
            let least: Duration = stages.iter().map(|stage| stage.fastest).sum();
            if least >= *within {
                let reason = format!(
                    "fastest: its stages take at least {}, as long as the deadline or longer",
                    humantime::format_duration(least)
                );
                self.issue(span, reason);
            }
        }
        if many {
            self.issue(
                span,
                "the last stage has many outputs: expected a stage of kind \"join\" after it",
            );
        }
        Some(ProofSpec {
            proof_type: proof_type?,
            zkvm: zkvm?,
            program_id: table.program_id,
            verify: table.verify,
            stages,
        })
    }

    /// Checks the stage's name and `from`. The stages of a proof form a chain: each reads the stage before
    /// it, the first one the block.
    fn from(&mut self, names: &[String], position: usize, stage: &StageTable) {
        let before = position
            .checked_sub(1)
            .and_then(|p| names.get(p))
            .map_or("block", String::as_str);
        let name = stage.name.as_ref();
        if names.iter().take(position).any(|n| n == name) || name == "block" {
            self.issue(
                &stage.name.span(),
                format!("stage `{name}` is defined twice or has the reserved name `block`"),
            );
        }
        let Some(from) = &stage.from else { return };
        let from_name = from.as_ref().as_str();
        if from_name == before {
            return;
        }
        let reason = match names.iter().position(|n| n == from_name) {
            Some(at) if at >= position => {
                format!("stage `{name}` reads `{from_name}`, which comes after it: a cycle")
            }
            None if from_name != "block" => {
                format!("stage `{name}` reads `{from_name}`, which is no stage of this proof")
            }
            _ => format!("stage `{name}` reads `{from_name}`: expected `{before}`, the stage before it"),
        };
        self.issue(&from.span(), reason);
    }

    /// Checks whether a range stage may stand at this position. `ranges` counts the range stages so far,
    /// this one included.
    fn range(&mut self, span: &Range<usize>, position: usize, ranges: u32, setting: &Setting<'_>) {
        let mut refuse = |reason: &str| self.issue(span, format!("kind = \"range\": {reason}"));
        if position == 0 {
            refuse("it needs a stage before it, which proves single blocks");
        }
        if ranges > 1 {
            refuse("a proof has at most one: ranges are not combined into larger ones");
        }
        if setting.proofs > 1 {
            refuse(
                "only in a pipeline of one proof type: several would cut their ranges in different places",
            );
        }
        if matches!(setting.policy, Some(Policy::Deadline { .. })) {
            refuse(
                "not with policy = \"deadline\": while a range waits for its last block, its first one gets late",
            );
        }
    }

    /// Checks whether the stage can read one or many outputs, as `many` says. Returns whether the stage
    /// itself writes many.
    fn shape(&mut self, span: &Range<usize>, stage: &Stage, many: bool) -> bool {
        match (stage.kind, many) {
            (StageKind::Split, true) | (StageKind::Range, true) => {
                self.issue(
                    span,
                    format!(
                        "stage `{}` reads many outputs: expected a \"map\" or \"join\" here",
                        stage.name
                    ),
                );
                true
            }
            (StageKind::Join, false) => {
                self.issue(
                    span,
                    format!(
                        "stage `{}` joins one output: expected a \"split\" before it",
                        stage.name
                    ),
                );
                false
            }
            (StageKind::Split, false) => true,
            (StageKind::Map, many) => many,
            (StageKind::Join, true) | (StageKind::Range, false) => false,
        }
    }

    fn stage(
        &mut self,
        span: &Range<usize>,
        table: StageTable,
        zkvm: Option<&ZkvmId>,
        policy: Option<&Policy>,
    ) -> Option<Stage> {
        let name: Option<StageName> = self.id(&table.name);
        let zkvm = match &table.zkvm {
            Some(own) => self.id(own),
            None => zkvm.cloned(),
        };
        let timeout = self.duration("timeout", &table.timeout);
        let hedge_after = table
            .hedge_after
            .as_ref()
            .and_then(|h| self.duration("hedge_after", h));
        let attempts = table
            .attempts
            .as_ref()
            .map_or(ATTEMPTS_DEFAULT, |a| self.at_least("attempts", 1, a));
        let deaths = table
            .deaths
            .as_ref()
            .map_or(DEATHS_DEFAULT, |d| self.at_least("deaths", 1, d));
        let retry = self.retry(table.retry.as_ref());
        let arity = table.arity.as_ref().map(|a| self.at_least("arity", 2, a));
        let every = table.every.as_ref().map(|e| self.at_least("every", 1, e));
        let close_after = table
            .close_after
            .as_ref()
            .and_then(|c| self.duration("close_after", c));
        self.times(span, timeout, hedge_after, policy);
        let fastest = table
            .fastest
            .as_ref()
            .and_then(|f| self.fastest(f, policy, timeout));
        let more_memory = table.more_memory.as_ref().and_then(|m| self.id(m));
        if let (Some(more), Some(zkvm)) = (&table.more_memory, &zkvm)
            && more_memory.as_ref() == Some(zkvm)
        {
            self.issue(
                &more.span(),
                format!("more_memory = \"{zkvm}\": expected another name than the stage's own zkVM"),
            );
        }
        if arity.is_some() && !matches!(table.kind, StageKind::Join | StageKind::Range) {
            self.issue(span, "arity: only with kind = \"join\" or \"range\"");
        }
        self.range_keys(span, &table);
        Some(Stage {
            name: name?,
            kind: table.kind,
            zkvm: zkvm?,
            arity,
            every,
            close_after,
            split_on_failure: table.split_on_failure.unwrap_or(false),
            timeout: timeout?,
            attempts,
            deaths,
            retry,
            hedge_after,
            fastest: fastest.unwrap_or_default(),
            more_memory,
        })
    }

    /// Reads the pauses between attempts. A key that is absent has its default, or the value of the other key
    /// if the default would contradict the other key.
    fn retry(&mut self, table: Option<&RetryTable>) -> Retry {
        let Some(table) = table else {
            return Retry::default();
        };
        let mut read = |key, value: Option<&Spanned<String>>| value.and_then(|text| self.duration(key, text));
        let first = read("retry.first", table.first.as_ref());
        let longest = read("retry.longest", table.longest.as_ref());
        if let (Some(first), Some(longest), Some(text)) = (first, longest, &table.longest)
            && longest < first
        {
            self.issue(&text.span(), "retry.longest: expected at least retry.first");
        }
        let default = Retry::default();
        Retry {
            first: first.unwrap_or_else(|| default.first.min(longest.unwrap_or(default.first))),
            longest: longest.unwrap_or_else(|| default.longest.max(first.unwrap_or(default.longest))),
        }
    }

    /// Checks `timeout` and `hedge_after` against each other and the deadline: a hedge must start before
    /// the timeout and the deadline, and the timeout may not be longer than the deadline.
    fn times(
        &mut self,
        span: &Range<usize>,
        timeout: Option<Duration>,
        hedge_after: Option<Duration>,
        policy: Option<&Policy>,
    ) {
        if let (Some(hedge), Some(timeout)) = (hedge_after, timeout)
            && hedge >= timeout
        {
            self.issue(span, "hedge_after: expected less than timeout");
        }
        if let Some(Policy::Deadline { within }) = policy {
            if hedge_after.is_some_and(|hedge| hedge >= *within) {
                self.issue(
                    span,
                    "hedge_after: a second copy that starts after the deadline is of no use",
                );
            }
            if timeout.is_some_and(|timeout| timeout > *within) {
                self.issue(
                    span,
                    "timeout: an attempt would be given longer than the deadline",
                );
            }
        }
    }

    /// Reads `fastest`, the minimum duration of an attempt.
    fn fastest(
        &mut self,
        text: &Spanned<String>,
        policy: Option<&Policy>,
        timeout: Option<Duration>,
    ) -> Option<Duration> {
        if !matches!(policy, Some(Policy::Deadline { .. })) {
            self.issue(&text.span(), "fastest: only with policy = \"deadline\"");
        }
        let fastest = self.duration("fastest", text)?;
        if timeout.is_some_and(|timeout| fastest >= timeout) {
            self.issue(&text.span(), "fastest: expected less than timeout");
        }
        Some(fastest)
    }

    /// Checks the keys of ranges: a range stage must have them, and no other stage may.
    fn range_keys(&mut self, span: &Range<usize>, table: &StageTable) {
        if table.kind != StageKind::Range {
            if table.every.is_some() || table.close_after.is_some() || table.split_on_failure.is_some() {
                self.issue(
                    span,
                    "every, close_after, split_on_failure: only with kind = \"range\"",
                );
            }
            return;
        }
        match &table.every {
            None => self.issue(
                span,
                "kind = \"range\": expected `every = 100` or another number of blocks",
            ),
            Some(every) if *every.as_ref() > RANGE_MAX => self.issue(
                &every.span(),
                format!("every = {}: expected at most {RANGE_MAX}", every.as_ref()),
            ),
            Some(_) => {}
        }
        if table.close_after.is_none() {
            self.issue(
                span,
                "kind = \"range\": expected `close_after = \"10m\"` or another duration, after which an unfilled range is closed",
            );
        }
    }
}
