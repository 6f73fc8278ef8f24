//! Cost of encoding and decoding each kind of message, measured on the examples in docs/protocol.md.
#![expect(clippy::panic, reason = "a benchmark that cannot run says why")]

use divan::{AllocProfiler, Bencher, black_box};
use push0_domain::{
    codec::{self, Encoding},
    message::{
        BlockEvent, Control, DeadLetter, Emission, KnownBlock, Lease, ResultEvent, StageReady, Task,
        TaskResult,
    },
};
use serde::{Serialize, de::DeserializeOwned};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

#[path = "../tests/domain/page.rs"]
mod page;

fn main() {
    divan::main();
}

trait Shown: Serialize + DeserializeOwned {
    const KIND: &'static str;
}

macro_rules! shown {
    ($($kind:ident)*) => { $(impl Shown for $kind { const KIND: &'static str = stringify!($kind); })* };
}

shown!(BlockEvent StageReady Task TaskResult ResultEvent Lease Control Emission DeadLetter KnownBlock);

/// Returns the page's first example of this type.
fn example<T: Shown>() -> T {
    let text = page::first_example(T::KIND).map(page::fill_in);
    let text = text.unwrap_or_else(|| panic!("docs/protocol.md shows no {}", T::KIND));
    codec::decode(text.as_bytes(), Encoding::Json).unwrap_or_else(|e| panic!("{}: {e}", T::KIND))
}

fn writing<T: Shown>(bencher: Bencher<'_, '_>, encoding: Encoding) {
    let value = example::<T>();
    bencher.bench_local(|| codec::encode(black_box(&value), encoding));
}

fn reading<T: Shown>(bencher: Bencher<'_, '_>, encoding: Encoding) {
    let body = codec::encode(&example::<T>(), encoding).unwrap_or_else(|e| panic!("{}: {e}", T::KIND));
    bencher.bench_local(|| codec::decode::<T>(black_box(&body), encoding));
}

#[divan::bench(types = [BlockEvent, StageReady, Task, TaskResult, ResultEvent, Lease, Control, Emission, DeadLetter, KnownBlock])]
fn write_bincode<T: Shown>(bencher: Bencher<'_, '_>) {
    writing::<T>(bencher, Encoding::Bincode);
}

#[divan::bench(types = [BlockEvent, StageReady, Task, TaskResult, ResultEvent, Lease, Control, Emission, DeadLetter, KnownBlock])]
fn read_bincode<T: Shown>(bencher: Bencher<'_, '_>) {
    reading::<T>(bencher, Encoding::Bincode);
}

#[divan::bench(types = [Task, ResultEvent, Lease])]
fn read_json<T: Shown>(bencher: Bencher<'_, '_>) {
    reading::<T>(bencher, Encoding::Json);
}

/// The prover signs the end of each attempt, and the collector and a verifier check the signature.
#[divan::bench]
fn sign(bencher: Bencher<'_, '_>) {
    let (pair, statement) = (nkeys::KeyPair::new_user(), example::<TaskResult>().statement());
    bencher.bench_local(|| pair.sign(black_box(statement.as_bytes())));
}

#[divan::bench]
fn check_signature(bencher: Bencher<'_, '_>) {
    let (pair, statement) = (nkeys::KeyPair::new_user(), example::<TaskResult>().statement());
    let signature = push0_domain::signature::Signature {
        key: pair.public_key(),
        word: None,
        bytes: pair.sign(statement.as_bytes()).unwrap_or_default(),
    };
    bencher.bench_local(|| black_box(&signature).verifies(black_box(&statement)));
}
