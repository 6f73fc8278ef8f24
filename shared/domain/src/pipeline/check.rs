//! Checks of a pipeline file. All mistakes are reported at once, each with its line.

mod proof;
mod source;

use super::file::PipelineFile;
use super::{PROOF_TYPES_MAX, Pipeline, Policy, ProofSpec, Rest};
use crate::PipelineId;
use std::{fmt, ops::Range, str::FromStr, time::Duration};
use toml::Spanned;

/// Longest duration allowed in a pipeline file. Ethproofs calls a block that takes over 20 minutes
/// paralysed, and range proofs of rollups take hours; a day is beyond both.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// One mistake in a pipeline file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The line of the mistake, from 1.
    pub line: usize,
    /// The mistake, and the expected value.
    pub reason: String,
}

/// Error for a refused pipeline file. Displays as one `file:line: reason` per line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidPipeline {
    /// The name of the file, for error messages.
    pub file: String,
    /// All mistakes, in the order of the file.
    pub issues: Vec<Issue>,
}

impl fmt::Display for InvalidPipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, issue) in self.issues.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{}:{}: {}", self.file, issue.line, issue.reason)?;
        }
        Ok(())
    }
}

impl Pipeline {
    /// Reads and checks a pipeline file. `file` is the file's name for error messages. The revision of the
    /// result is 0.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, InvalidPipeline> {
        let mut checker = Checker {
            text,
            issues: Vec::new(),
        };
        let pipeline = match toml::from_str::<PipelineFile>(text) {
            Ok(parsed) => checker.pipeline(parsed),
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                checker.issue(&span, error.message().replace('\n', ", "));
                None
            }
        };
        checker.issues.sort_by_key(|issue| issue.line);
        match pipeline {
            Some(pipeline) if checker.issues.is_empty() => Ok(pipeline),
            _ => Err(InvalidPipeline {
                file: file.to_owned(),
                issues: checker.issues,
            }),
        }
    }
}

struct Checker<'a> {
    text: &'a str,
    issues: Vec<Issue>,
}

/// Properties of the whole pipeline on which the check of a proof depends.
struct Setting<'a> {
    policy: Option<&'a Policy>,
    /// The number of proof types in the pipeline.
    proofs: usize,
}

impl Checker<'_> {
    fn issue(&mut self, span: &Range<usize>, reason: impl Into<String>) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        self.issues.push(Issue {
            line,
            reason: reason.into(),
        });
    }

    fn id<T: FromStr<Err: fmt::Display>>(&mut self, text: &Spanned<String>) -> Option<T> {
        text.as_ref()
            .parse()
            .map_err(|e: T::Err| self.issue(&text.span(), e.to_string()))
            .ok()
    }

    fn duration(&mut self, what: &str, text: &Spanned<String>) -> Option<Duration> {
        match humantime::parse_duration(text.as_ref()) {
            Ok(duration) if duration > Duration::ZERO && duration <= TIMEOUT_MAX => return Some(duration),
            Ok(_) => self.issue(
                &text.span(),
                format!(
                    "{what} = \"{}\": expected more than 0 and at most 24h",
                    text.as_ref()
                ),
            ),
            Err(e) => self.issue(
                &text.span(),
                format!(
                    "{what} = \"{}\": expected a duration such as \"10s\": {e}",
                    text.as_ref()
                ),
            ),
        }
        None
    }

    fn at_least(&mut self, what: &str, least: u32, value: &Spanned<u32>) -> u32 {
        if *value.as_ref() < least {
            self.issue(
                &value.span(),
                format!("{what} = {}: expected at least {least}", value.as_ref()),
            );
        }
        *value.as_ref()
    }

    fn pipeline(&mut self, file: PipelineFile) -> Option<Pipeline> {
        let name: Option<PipelineId> = self.id(&file.name);
        let policy = self.policy(&file);
        let weight = file.weight.as_ref().map_or(1, |w| self.at_least("weight", 1, w));
        let source_span = file.source.span();
        let source = self.source(&source_span, file.source.into_inner());
        if file.proof.is_empty() || file.proof.len() > PROOF_TYPES_MAX {
            let reason = format!(
                "{} [[proof]] tables: expected 1 to {PROOF_TYPES_MAX}",
                file.proof.len()
            );
            self.issue(&file.name.span(), reason);
        }
        let wanted = u32::try_from(file.proof.len()).unwrap_or(u32::MAX);
        let (quorum, rest) = match file.quorum {
            None => (wanted, Rest::Stop),
            Some(quorum) => {
                let valid = self.at_least("quorum.valid", 1, &quorum.valid);
                if valid > wanted {
                    let reason = format!("quorum.valid = {valid}: there are only {wanted} proofs");
                    self.issue(&quorum.valid.span(), reason);
                }
                (valid, quorum.rest)
            }
        };
        let mut proofs: Vec<ProofSpec> = Vec::new();
        let setting = Setting {
            policy: policy.as_ref(),
            proofs: file.proof.len(),
        };
        for table in file.proof {
            let span = table.span();
            if let Some(proof) = self.proof(&span, table.into_inner(), &setting) {
                if proofs.iter().any(|p| p.proof_type == proof.proof_type) {
                    self.issue(
                        &span,
                        format!("proof type `{}` is defined twice", proof.proof_type),
                    );
                }
                proofs.push(proof);
            }
        }
        Some(Pipeline {
            name: name?,
            revision: 0,
            policy: policy?,
            weight,
            source: source?,
            quorum,
            rest,
            proofs,
        })
    }

    fn policy(&mut self, file: &PipelineFile) -> Option<Policy> {
        let word = file
            .policy
            .as_ref()
            .map_or("oldest-first", |p| p.as_ref().as_str());
        let span = file.policy.as_ref().unwrap_or(&file.name).span();
        match (word, &file.deadline) {
            ("oldest-first", None) => Some(Policy::OldestFirst),
            ("oldest-first", Some(deadline)) => {
                self.issue(&deadline.span(), "deadline: only with policy = \"deadline\"");
                None
            }
            ("deadline", Some(deadline)) => self
                .duration("deadline", deadline)
                .map(|within| Policy::Deadline { within }),
            ("deadline", None) => {
                self.issue(
                    &span,
                    "policy = \"deadline\": expected `deadline = \"10s\"` or another duration beside it",
                );
                None
            }
            (other, _) => {
                self.issue(
                    &span,
                    format!("policy = \"{other}\": expected \"oldest-first\" or \"deadline\""),
                );
                None
            }
        }
    }
}
