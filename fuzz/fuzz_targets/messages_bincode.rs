//! Bodies of messages in bincode, as push0's services write them. The first byte chooses the type.
#![no_main]

use libfuzzer_sys::fuzz_target;
use push0_domain::codec::Encoding;
use push0_fuzz::{
    body::{MESSAGES, read_chosen},
    seeds,
};

fuzz_target!(
    init: seeds::write(seeds::bodies(MESSAGES, true)),
    |input: &[u8]| read_chosen(MESSAGES, Encoding::Bincode, input)
);
