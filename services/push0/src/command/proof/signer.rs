//! `push0 proof signer N`: tells who signed an emitted proof.

use super::selection::Which;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use clap::Args;
use push0_accounts::{Book, signature};
use push0_bus::Bus;
use push0_domain::{message::Proof, payload::BlobHash};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub(crate) struct SignerArgs {
    #[command(flatten)]
    which: Which,
    /// The book of keys, as `push0 auth` writes it: `DIR/public/accounts.json`. Use the operator's own copy: a broker
    /// that lies cannot change it.
    #[arg(long, value_name = "FILE")]
    accounts: PathBuf,
}

pub(super) async fn run(context: &Context, bus: &Bus, args: &SignerArgs) -> Result<(), Failure> {
    let book = read_book(&args.accounts)?;
    let emitted = args.which.find(context, bus).await?;
    let (emission, proof) = (&emitted.record.emission, &emitted.proof);
    let block = emission.last;
    let key = proof.signed.as_ref().map(|signed| signed.signature.key.clone());
    let bytes = bus.blobs().resolve(&proof.payload).await?;
    let judged = match emission.statement(proof) {
        None => Err("the record has no signature: its prover signed in without a key".to_owned()),
        Some(statement) => judge(&book, proof, &statement),
    };
    if context.json {
        let (is_signed, sha256) = (judged.is_ok(), BlobHash::of(&bytes));
        output::json(&json!({
            "block": block, "type": proof.proof_type, "prover": proof.prover, "key": key, "sha256": sha256,
            "signed": is_signed, "reason": judged.err(),
        }))?;
        return if is_signed { Ok(()) } else { Err(Failure::Told) };
    }
    match judged {
        Ok(()) => output::line(&format!(
            "block {block}: {} signed the {} proof with the key {}",
            proof.prover,
            proof.proof_type,
            key.unwrap_or_default()
        )),
        Err(reason) => Err(Failure::failed(format!(
            "block {block}: {} is not known to have made the {} proof: {reason}",
            proof.prover, proof.proof_type
        ))),
    }
}

fn judge(book: &Book, proof: &Proof, statement: &str) -> Result<(), String> {
    let signed = proof.signed.as_ref().ok_or("no signature")?;
    let by = (&proof.zkvm, &proof.prover);
    signature::check(book, by, statement, &signed.signature).map_err(|e| e.to_string())
}

fn read_book(path: &Path) -> Result<Book, Failure> {
    let text = std::fs::read(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    serde_json::from_slice(&text).map_err(|e| {
        Failure::usage(format!(
            "{}: {e}; expected the file accounts.json of `push0 auth`",
            path.display()
        ))
    })
}
