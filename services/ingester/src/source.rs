//! Where blocks come from: one module per kind of source.
//!
//! A source hands a [`Publisher`](crate::publisher::Publisher) what it sees, in the order of the
//! chain, and runs until its stop is requested. What goes wrong in it is said in the pipeline's
//! status and tried again; it ends by itself only when another process leads.

mod ethereum;
mod file;
pub(crate) mod http;
mod submitted;

use crate::publisher::{Deposed, Opened};
use http::Desk;
use push0_domain::pipeline::Source;
use push0_runtime::Shutdown;

/// Runs a source from where the last leader stopped.
pub(crate) async fn run(
    source: &Source,
    opened: Opened,
    desk: &Desk,
    stop: &Shutdown,
) -> Result<(), Deposed> {
    match source {
        Source::Ethereum(source) => ethereum::run(source, opened, stop).await,
        Source::File { path } => file::run(path, opened, stop).await,
        Source::Http => http::run(opened, desk, stop).await,
        Source::External => {
            stop.requested().await;
            Ok(())
        }
    }
}
