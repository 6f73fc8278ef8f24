//! The way in for `http` pipelines: the address at which the ingester takes posted blocks.

use super::plan::Process;
use super::ports;
use crate::failure::Failure;
use push0_domain::pipeline::{Pipeline, Source};
use std::net::SocketAddr;

/// Variable with the address.
pub(crate) const VARIABLE: &str = "PUSH0_SUBMIT__LISTEN";

/// Variable with the file of the token.
pub(crate) const TOKEN_VARIABLE: &str = "PUSH0_SUBMIT__TOKEN_FILE";

/// Returns the address for the ingester: the one in [`VARIABLE`]; else, if a pipeline takes posted blocks, the
/// one of the last run or a free one.
pub(crate) fn address(
    pipelines: &[Pipeline],
    last: Option<SocketAddr>,
) -> Result<Option<SocketAddr>, Failure> {
    if let Some(text) = std::env::var_os(VARIABLE).filter(|text| !text.is_empty()) {
        let text = text.to_string_lossy();
        let wrong = |_| {
            Failure::usage(format!(
                "{VARIABLE} = {text:?}: expected an address such as 127.0.0.1:8090"
            ))
        };
        return text.parse().map(Some).map_err(wrong);
    }
    let is_asked_for = pipelines.iter().any(is_posted_to);
    Ok(is_asked_for.then(|| ports::address_again(last)).transpose()?)
}

/// Lets the ingester listen on the address, and ask for the token of [`TOKEN_VARIABLE`] if that is set.
pub(crate) fn listen(processes: &mut [Process], address: SocketAddr) {
    let ingesters = processes.iter_mut().filter(|process| process.name == "ingester");
    for ingester in ingesters {
        ingester.env.insert(VARIABLE.into(), address.to_string());
        if let Ok(file) = std::env::var(TOKEN_VARIABLE) {
            ingester.env.insert(TOKEN_VARIABLE.into(), file);
        }
    }
}

/// Returns one line for each pipeline that takes posted blocks, with its URL.
pub(crate) fn urls(pipelines: &[Pipeline], address: SocketAddr) -> impl Iterator<Item = String> {
    let posted_to = pipelines.iter().filter(|pipeline| is_posted_to(pipeline));
    posted_to.map(move |pipeline| {
        let name = &pipeline.name;
        format!("pipeline {name}: post blocks to http://{address}/v1/pipelines/{name}/blocks")
    })
}

fn is_posted_to(pipeline: &Pipeline) -> bool {
    pipeline.source == Source::Http
}
