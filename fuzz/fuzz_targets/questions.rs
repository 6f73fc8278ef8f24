//! The broker's questions about clients that sign in, and the book's word on each.
#![no_main]

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use libfuzzer_sys::fuzz_target;
use push0_accounts::{Book, Request, admit, refuse};
use push0_domain::Timestamp;
use push0_fuzz::{
    fleet::{self, Owner},
    seeds,
};
use std::sync::LazyLock;

static BOOK: LazyLock<Book> = LazyLock::new(fleet::book);
static ISSUER: LazyLock<String> = LazyLock::new(|| fleet::seed(Owner::Issuer));

fn read(input: &[u8]) {
    // As it comes, and with the input as the claims of a question.
    judge(input);
    judge(format!("e30.{}.e30", BASE64.encode(input)).as_bytes());
}

fn judge(text: &[u8]) {
    let Ok(request) = Request::read(text) else { return };
    let now = Timestamp(1);
    let issuer = &*ISSUER;
    let answer = match request.decide(&BOOK) {
        Ok(admitted) => admit(&request, &admitted, issuer, now),
        Err(refused) => refuse(&request, &refused.to_string(), issuer, now),
    };
    let answer = answer.expect("every question has an answer");
    assert!(
        Request::read(answer.as_bytes()).is_err(),
        "an answer is no question"
    );
}

/// Returns the claims of a replica whose word and signature are right, and of clients that show less.
fn known() -> Vec<Vec<u8>> {
    let replica = fleet::replica();
    let nonce = "a nonce";
    let sig = BASE64.encode(fleet::sign(&replica.seed, nonce.as_bytes()));
    let claims = |word: &str, sig: &str| {
        serde_json::json!({ "nats": {
            "server_id": { "id": "N1" },
            "user_nkey": "UCLIENT",
            "client_info": { "nonce": nonce },
            "connect_opts": { "nkey": replica.key, "sig": sig, "auth_token": word },
        }})
    };
    let all = [
        claims(&replica.word, &sig),
        claims(&replica.word, ""),
        claims("", &sig),
    ];
    all.map(|claims| claims.to_string().into_bytes()).to_vec()
}

fuzz_target!(
    init: seeds::write(known()),
    |input: &[u8]| read(input)
);
