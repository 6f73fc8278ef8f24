//! Sources of blocks, one module per kind of source.
//!
//! A source passes its blocks to a [`Publisher`](crate::publisher::Publisher), in chain order, until its
//! stop is requested. Failures appear in the pipeline's status and are retried. A source ends by itself
//! only when another process leads, or when this process cannot reach the source and another one may.

mod ended;
mod ethereum;
mod file;
pub(crate) mod http;
mod submitted;

use crate::{decide::DEPTH, publisher::resume::Opened, status::Status};
pub(crate) use ended::Ended;
use ethereum::Node;
use http::Desk;
use push0_domain::pipeline::Source;
use push0_runtime::Shutdown;

/// Access to a source from this process, including its connections.
pub(crate) struct Access {
    source: Source,
    /// The client of a node; `None` for every other source.
    node: Option<Node>,
}

impl Access {
    pub(crate) fn new(source: &Source, status: &Status) -> Self {
        let node = match source {
            Source::Ethereum(source) => Some(Node::new(source, status)),
            Source::File { .. } | Source::Http | Source::External => None,
        };
        Self {
            source: source.clone(),
            node,
        }
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Returns the number of published blocks to remember.
    pub(crate) fn depth(&self) -> usize {
        self.node.as_ref().map_or(DEPTH, Node::depth)
    }

    /// Waits until the source is reachable. Until then, the status gives the reason.
    pub(crate) async fn reach(&self, status: &mut Status) {
        match (&self.source, &self.node) {
            (_, Some(node)) => node.reach(status).await,
            (Source::File { path }, None) => file::reach(path, status).await,
            _ => {}
        }
    }

    /// Runs the source from the position at which the last leader stopped.
    pub(crate) async fn run(&self, opened: Opened, desk: &Desk, stop: &Shutdown) -> Result<(), Ended> {
        match (&self.source, &self.node) {
            (_, Some(node)) => node.run(opened, stop).await,
            (Source::File { path }, None) => file::run(path, opened, stop).await,
            (Source::Http, None) => http::run(opened, desk, stop).await,
            _ => {
                stop.requested().await;
                Ok(())
            }
        }
    }
}
