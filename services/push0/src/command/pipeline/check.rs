//! `push0 pipeline check FILE`: checks a file without a broker.

use crate::context::Context;
use crate::failure::Failure;
use crate::pipeline_file::FileArgs;
use crate::{graph, output, secrets};

pub(super) fn run(context: &Context, args: &FileArgs) -> Result<(), Failure> {
    let pipeline = args.load()?;
    if context.json {
        output::json(&secrets::hide(&pipeline))
    } else {
        output::line(&graph::render(&pipeline))
    }
}
