//! Bodies of messages in JSON, as adapters in other languages write them. The first byte chooses the type.
#![no_main]

use libfuzzer_sys::fuzz_target;
use push0_domain::codec::Encoding;
use push0_fuzz::{
    body::{MESSAGES, read_chosen},
    seeds,
};

fuzz_target!(
    init: seeds::write(seeds::bodies(MESSAGES, false)),
    |input: &[u8]| read_chosen(MESSAGES, Encoding::Json, input)
);
