//! Where blocks come from: one module per kind of source.
//!
//! A source hands a [`Publisher`](crate::publisher::Publisher) what it sees, in the order of the
//! chain, and runs until its stop is requested. What goes wrong in it is said in the pipeline's
//! status and tried again. It ends by itself only when another process leads, or when another
//! process may reach what this one does not.

mod ethereum;
mod file;
pub(crate) mod http;
mod submitted;

use crate::{
    publisher::{Deposed, Opened},
    status::Status,
};
use ethereum::Node;
use http::Desk;
use push0_domain::pipeline::Source;
use push0_runtime::Shutdown;
use std::time::Duration;

/// How long a leader goes on although it does not reach its source. A node that is restarted by hand
/// takes longer, one that drops a connection answers the next time.
const OUT_OF_REACH_MAX: Duration = Duration::from_secs(2);

/// Why a source ended by itself.
pub(crate) enum Ended {
    /// Another process leads.
    Deposed,
    /// Nothing was heard of the source for [`OUT_OF_REACH_MAX`].
    OutOfReach,
}

impl From<Deposed> for Ended {
    fn from(Deposed: Deposed) -> Self {
        Self::Deposed
    }
}

/// The way to a source from this process, its connections included.
pub(crate) struct Access {
    source: Source,
    /// None for every source but a node.
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

    /// Waits until the source is in reach; the status says why it is not.
    pub(crate) async fn reach(&self, status: &mut Status) {
        match (&self.source, &self.node) {
            (_, Some(node)) => node.reach(status).await,
            (Source::File { path }, None) => file::reach(path, status).await,
            _ => {}
        }
    }

    /// Runs the source from where the last leader stopped.
    pub(crate) async fn run(&self, opened: Opened, desk: &Desk, stop: &Shutdown) -> Result<(), Ended> {
        match (&self.source, &self.node) {
            (_, Some(node)) => node.run(opened, stop).await,
            (Source::File { path }, None) => file::run(path, opened, stop).await,
            (Source::Http, None) => Ok(http::run(opened, desk, stop).await?),
            _ => {
                stop.requested().await;
                Ok(())
            }
        }
    }
}
