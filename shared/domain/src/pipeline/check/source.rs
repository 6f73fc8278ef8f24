//! Checks of the table `[source]`.

use super::Checker;
use crate::BlockRef;
use crate::pipeline::{
    DEPTH_MAX, EthereumSource, HashRule, Source, Start, URLS_MAX, Witness,
    file::{EthereumTable, SourceTable, StartValue, Urls},
};
use std::{ops::Range, time::Duration};

/// Defaults of the durations of `[source]`.
const POLL: Duration = Duration::from_millis(500);
const STALE_AFTER: Duration = Duration::from_secs(120);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Default of `source.depth`: Ethereum finalises after 64 blocks.
const DEPTH: u32 = 64;
/// Default and maximum of `source.answer_max_mib`. A full block with as much calldata as the gas limit pays for is
/// well below the default; a payload has at most 256 MiB.
const ANSWER_MIB: u32 = 32;
const ANSWER_MIB_MAX: u32 = 256;

/// The range in which a duration of `[source]` must lie.
struct Within {
    least: Duration,
    most: Duration,
}

impl Checker<'_> {
    pub(super) fn source(&mut self, span: &Range<usize>, table: SourceTable) -> Option<Source> {
        match table {
            SourceTable::File { path } => Some(Source::File { path }),
            SourceTable::Http {} => Some(Source::Http),
            SourceTable::External {} => Some(Source::External),
            SourceTable::Ethereum(table) => self.ethereum(span, table).map(Source::Ethereum),
        }
    }

    fn ethereum(&mut self, span: &Range<usize>, table: EthereumTable) -> Option<EthereumSource> {
        let day = Duration::from_secs(24 * 3600);
        let poll = Within {
            least: Duration::from_millis(10),
            most: day,
        };
        let stale = Within {
            least: Duration::from_secs(1),
            most: day,
        };
        let timeout = Within {
            least: Duration::from_millis(100),
            most: Duration::from_secs(600),
        };
        let poll = self.source_duration(span, "poll", table.poll.as_deref(), POLL, &poll);
        let stale_after = self.source_duration(
            span,
            "stale_after",
            table.stale_after.as_deref(),
            STALE_AFTER,
            &stale,
        );
        let timeout = self.source_duration(span, "timeout", table.timeout.as_deref(), TIMEOUT, &timeout);
        Some(EthereumSource {
            rpc_urls: self.urls(span, table.rpc_url),
            start: self.start(span, table.start),
            confirmations: table.confirmations,
            poll: poll?,
            witness: self.witness(span, table.witness, table.hash),
            hash: table.hash,
            depth: self.source_number(span, "depth", table.depth.unwrap_or(DEPTH), DEPTH_MAX),
            stale_after: stale_after?,
            timeout: timeout?,
            answer_max_mib: self.source_number(
                span,
                "answer_max_mib",
                table.answer_max_mib.unwrap_or(ANSWER_MIB),
                ANSWER_MIB_MAX,
            ),
        })
    }

    fn urls(&mut self, span: &Range<usize>, urls: Urls) -> Vec<String> {
        let urls = match urls {
            Urls::One(url) => vec![url],
            Urls::Several(urls) => urls,
        };
        if urls.is_empty() || urls.len() > URLS_MAX {
            self.issue(
                span,
                format!("source.rpc_url: {} URLs: expected 1 to {URLS_MAX}", urls.len()),
            );
        }
        let is_http = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if !urls.iter().all(is_http) {
            self.issue(span, "source.rpc_url: expected an http:// or https:// URL");
        }
        urls
    }

    fn start(&mut self, span: &Range<usize>, start: Option<StartValue>) -> Start {
        match start {
            None => Start::Latest,
            Some(StartValue::Number(number)) => {
                if number > BlockRef::NUMBER_MAX {
                    let most = BlockRef::NUMBER_MAX;
                    self.issue(span, format!("source.start = {number}: expected at most {most}"));
                }
                Start::Number(number)
            }
            Some(StartValue::Word(word)) => {
                if word != "latest" {
                    let reason = format!("source.start = \"{word}\": expected \"latest\" or a block number");
                    self.issue(span, reason);
                }
                Start::Latest
            }
        }
    }

    /// Returns the witness. Where the header does not hash to the block's hash, no program can check it.
    fn witness(&mut self, span: &Range<usize>, witness: Option<Witness>, hash: HashRule) -> Witness {
        match (witness, hash) {
            (Some(Witness::Header), HashRule::Node) => {
                self.issue(
                    span,
                    "source.witness = \"header\" with source.hash = \"node\": expected \"block\" or \"number\", \
                     because the header need not hash to the block's hash",
                );
                Witness::Block
            }
            (Some(witness), _) => witness,
            (None, HashRule::Header) => Witness::Header,
            (None, HashRule::Node) => Witness::Block,
        }
    }

    fn source_duration(
        &mut self,
        span: &Range<usize>,
        key: &str,
        text: Option<&str>,
        default: Duration,
        within: &Within,
    ) -> Option<Duration> {
        let Some(text) = text else { return Some(default) };
        match humantime::parse_duration(text) {
            Ok(duration) if duration >= within.least && duration <= within.most => Some(duration),
            _ => {
                let (least, most) = (within.least, within.most);
                let shown = humantime::format_duration;
                let (least, most) = (shown(least), shown(most));
                self.issue(
                    span,
                    format!("source.{key} = \"{text}\": expected a duration from \"{least}\" to \"{most}\""),
                );
                None
            }
        }
    }

    fn source_number(&mut self, span: &Range<usize>, key: &str, number: u32, most: u32) -> u32 {
        if number == 0 || number > most {
            self.issue(span, format!("source.{key} = {number}: expected 1 to {most}"));
        }
        number
    }
}
