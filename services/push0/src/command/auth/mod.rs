//! `push0 auth`: keys and accounts of the broker. Works on files alone, without a broker.

mod keys;

use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::table::{Align, NONE, render};
use clap::{Args, Subcommand};
use keys::Keys;
use push0_accounts::{Book, Member};
use push0_domain::{ProverId, ZkvmId, message::Role};
use std::path::PathBuf;

/// The way in which brokers take over a change.
const RELOAD: &str = "reload each broker twice";
/// A broker refuses to reload the section that names the enroller and the issuer.
const RESTART: &str = "restart the brokers one by one (\"Brokers, one by one\" there)";

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Draw the keys that every deployment needs, and write the broker's configuration. Safe to repeat: existing
    /// keys stay, and the configuration becomes that of this version.
    Init(Init),
    /// Add a prover, or a fleet whose replicas enrol by one credential.
    AddProver(Add),
    /// Add a verifier, or a fleet whose replicas enrol by one credential.
    AddVerifier(Add),
    /// Draw the key of a user, a fleet or the issuer anew.
    Rotate(Named),
    /// Remove a prover, verifier or fleet, or refuse a replica by its name.
    Revoke(Named),
    /// List every key. Shows no secret.
    Show(Directory),
}

#[derive(Args, Debug)]
pub(crate) struct Directory {
    /// Directory of the keys, which its owner alone may enter.
    #[arg(id = "keys", value_name = "KEYS")]
    dir: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Init {
    #[command(flatten)]
    directory: Directory,
    /// Also add fleets of provers and verifiers of this zkVM, called `ZKVM-provers` and `ZKVM-verifiers`. May be repeated.
    #[arg(long, value_name = "ZKVM")]
    zkvm: Vec<ZkvmId>,
    /// Let every user read the seeds inside the directory: files that are mounted into containers of another user.
    #[arg(long)]
    containers: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Add {
    #[command(flatten)]
    directory: Directory,
    /// Name of the process (its PUSH0_PROVER__ID), or of the fleet.
    name: ProverId,
    /// The zkVM that it serves.
    #[arg(long)]
    zkvm: ZkvmId,
    /// Any number of replicas enrol by this key, each under a name of its own.
    #[arg(long)]
    fleet: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Named {
    #[command(flatten)]
    directory: Directory,
    /// Name, as `push0 auth show` lists it.
    name: String,
}

pub(crate) fn run(context: &Context, command: &AuthCommand) -> Result<(), Failure> {
    match command {
        AuthCommand::Init(args) => init(args),
        AuthCommand::AddProver(args) => add(args, Role::Prover),
        AuthCommand::AddVerifier(args) => add(args, Role::Verifier),
        AuthCommand::Rotate(args) => {
            let mut keys = Keys::open(&args.directory.dir)?;
            let seed = keys.rotate(&args.name)?;
            let then = if Book::needs_restart(&args.name) {
                RESTART
            } else {
                RELOAD
            };
            let next = next_step(&args.directory, then);
            output::line(&format!(
                "{} is a new key of {}. {next}, and restart its processes with the new file",
                seed.display(),
                args.name
            ))
        }
        AuthCommand::Revoke(args) => {
            let mut keys = Keys::open(&args.directory.dir)?;
            let had_key = keys.revoke(&args.name)?;
            let what = if had_key {
                "has no key any more"
            } else {
                "may not sign in any more"
            };
            let next = next_step(&args.directory, RELOAD);
            output::line(&format!("{} {what}. {next}", args.name))
        }
        AuthCommand::Show(args) => show(context, args),
    }
}

/// Tells how a change reaches the brokers; `then` is the last part.
fn next_step(directory: &Directory, then: &str) -> String {
    format!(
        "Now put the changed keys in place (docs/operate.md, \"Put changed keys in place\"): copy {} to the deployment, \
         then {then}",
        directory.dir.display()
    )
}

fn init(args: &Init) -> Result<(), Failure> {
    let was_there = Keys::exist(&args.directory.dir);
    let mut keys = Keys::init(&args.directory.dir, args.containers)?;
    for zkvm in &args.zkvm {
        for (role, kind) in [(Role::Prover, "provers"), (Role::Verifier, "verifiers")] {
            let name = ProverId::new(&format!("{zkvm}-{kind}"))?;
            let zkvm = zkvm.clone();
            if !keys.has(&name) {
                keys.add(name, |key| Member {
                    role,
                    zkvm,
                    key,
                    fleet: true,
                })?;
            }
        }
    }
    keys.write()?;
    let next = if was_there {
        format!(". {}", next_step(&args.directory, RELOAD))
    } else {
        String::new()
    };
    output::line(&format!(
        "{} has the keys, and {} what brokers and enrollers read{next}{}",
        args.directory.dir.display(),
        keys.public().display(),
        lacking(&keys.without_seed(), &args.directory)
    ))
}

/// Names the seeds that are not in the directory, and how to draw new ones.
fn lacking(names: &[&str], directory: &Directory) -> String {
    let [first, ..] = names else {
        return String::new();
    };
    format!(
        "\nThese seeds are not in the directory: {}. Where a seed is lost, `push0 auth rotate {} {first}` draws a new one",
        names.join(", "),
        directory.dir.display()
    )
}

fn add(args: &Add, role: Role) -> Result<(), Failure> {
    let mut keys = Keys::open(&args.directory.dir)?;
    let (zkvm, fleet) = (args.zkvm.clone(), args.fleet);
    let seed = keys.add(args.name.clone(), |key| Member {
        role,
        zkvm,
        key,
        fleet,
    })?;
    keys.write()?;
    let variable = if fleet {
        "PUSH0_PROVER__ENROL"
    } else {
        "PUSH0_NATS__NKEY_SEED"
    };
    output::line(&format!(
        "{} is the seed of {}, for {variable}. {}",
        seed.display(),
        args.name,
        next_step(&args.directory, RELOAD)
    ))
}

fn show(context: &Context, args: &Directory) -> Result<(), Failure> {
    let keys = Keys::open(&args.dir)?;
    let book = keys.book();
    if context.json {
        return output::json(book);
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, kind: &str, zkvm: &str, key: &str| {
        rows.push([name, kind, zkvm, key].map(str::to_owned).to_vec());
    };
    for (user, key) in &book.control {
        row(user.as_str(), "service", NONE, key);
    }
    row("issuer", "signs for the enroller", NONE, &book.issuer);
    for (name, member) in &book.members {
        let kind = match (member.role, member.fleet) {
            (Role::Prover, false) => "prover",
            (Role::Prover, true) => "fleet of provers",
            (Role::Verifier, false) => "verifier",
            (Role::Verifier, true) => "fleet of verifiers",
        };
        row(name.as_str(), kind, member.zkvm.as_str(), &member.key);
    }
    for name in &book.revoked {
        row(name.as_str(), "revoked replica", NONE, NONE);
    }
    let columns = ["name", "kind", "zkvm", "public key"].map(|name| (name, Align::Left));
    output::line(&render(&columns, &rows))
}
