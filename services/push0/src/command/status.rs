//! `push0 status`: shows and judges the state of the deployment.

use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::status::{self, Status};
use crate::watch::{self, Watch};
use clap::Args;
use push0_bus::BusError;
use std::time::Duration;

/// Time limit for the broker to confirm that the streams exist.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    watch: Watch,
    /// Print the first line only: for probes, by the exit code. 0 says OK, 1 says NOT OK or that no broker answers.
    #[arg(long, conflicts_with = "every")]
    check: bool,
}

pub(crate) async fn run(context: &Context, args: &StatusArgs) -> Result<(), Failure> {
    let bus = context.broker().await?;
    // Only missing streams end the command here. Silent brokers are a problem for the
    // status itself to report.
    if let Ok(Err(missing @ BusError::Missing { .. })) =
        tokio::time::timeout(ANSWER_TIMEOUT, bus.check_provisioned()).await
    {
        return Err(missing.into());
    }
    if args.watch.is_on() {
        return watch::repeat(context, &args.watch, async || {
            text(context, args, &status::look(context, &bus).await)
        })
        .await;
    }
    let status = status::look(context, &bus).await;
    output::text(context.json, &text(context, args, &status)?)?;
    if status.ok { Ok(()) } else { Err(Failure::Told) }
}

/// Returns the status in the form that was asked for.
fn text(context: &Context, args: &StatusArgs, status: &Status) -> Result<String, Failure> {
    if context.json {
        return Ok(serde_json::to_string(status)?);
    }
    Ok(match args.check {
        true => status::first_line(status),
        false => status::render(status),
    })
}
