//! `push0 endpoint`: prints the broker's URL with its secret, for clients other than `push0`.

use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use serde_json::json;

pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let Some(endpoint) = context.running()? else {
        return Err(Failure::failed(format!(
            "no `push0 up` runs in {}: name its directory with --dir",
            context.dir.display()
        )));
    };
    if context.json {
        return output::json(&json!({ "nats_url": endpoint.nats_url, "submit": endpoint.submit }));
    }
    output::line(&endpoint.nats_url)
}
