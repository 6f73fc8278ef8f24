//! The commands, one file or directory each.

pub(crate) mod auth;
pub(crate) mod block;
pub(crate) mod blocks;
pub(crate) mod cancel;
pub(crate) mod child;
pub(crate) mod completions;
pub(crate) mod dead;
pub(crate) mod endpoint;
pub(crate) mod events;
pub(crate) mod logs;
pub(crate) mod pipeline;
pub(crate) mod proof;
pub(crate) mod provers;
pub(crate) mod provision;
pub(crate) mod repair;
pub(crate) mod report;
pub(crate) mod retry;
pub(crate) mod status;
pub(crate) mod sweep;
pub(crate) mod top;
pub(crate) mod up;

use crate::cli::Command;
use crate::context::Context;
use crate::failure::Failure;

/// Runs the command.
pub(crate) async fn run(context: Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up::run(context, args).await,
        Command::Auth(command) => auth::run(&context, &command),
        Command::Provision(args) => provision::run(&context, &args).await,
        Command::Pipeline(command) => pipeline::run(&context, &command).await,
        Command::Status(args) => status::run(&context, &args).await,
        Command::Blocks(args) => blocks::run(&context, &args).await,
        Command::Block(args) => block::run(&context, &args).await,
        Command::Provers(args) => provers::run(&context, &args).await,
        Command::Events(args) => events::run(&context, &args).await,
        Command::Top => top::run(&context).await,
        Command::Logs(args) => logs::run(&context, &args).await,
        Command::Proof(command) => proof::run(&context, &command).await,
        Command::Dead(command) => dead::run(&context, &command).await,
        Command::Cancel(args) => cancel::run(&context, &args).await,
        Command::Sweep(args) => sweep::run(&context, &args).await,
        Command::Retry(args) => retry::run(&context, &args).await,
        Command::Endpoint => endpoint::run(&context),
        Command::Repair(args) => repair::run(&context, &args).await,
        Command::Report(args) => report::run(&context, &args).await,
        Command::Child(args) => child::run(&args),
        // They need no broker: the process ran them before the runtime started.
        Command::Completions(_) | Command::Man(_) => Ok(()),
    }
}
