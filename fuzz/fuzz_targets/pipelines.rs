//! Files of pipelines. An accepted one is the same in the form that the bucket stores; a refused one names its lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use push0_domain::{
    codec::{Encoding, decode, encode},
    pipeline::Pipeline,
};
use push0_fuzz::{seeds, walk::Walk};

fn read(text: &str) {
    match Pipeline::from_toml("pipeline", text) {
        Ok(pipeline) => {
            pipeline.walk();
            let stored = encode(&pipeline, Encoding::Json).expect("a definition can be stored");
            let again: Pipeline = decode(&stored, Encoding::Json).expect("what was stored can be read");
            assert_eq!(again, pipeline);
        }
        Err(refused) => {
            let lines = text.matches('\n').count() + 1;
            assert!(!refused.issues.is_empty(), "refused without a reason");
            assert!(
                refused
                    .issues
                    .iter()
                    .all(|issue| (1..=lines).contains(&issue.line)),
                "{refused}"
            );
        }
    }
}

fuzz_target!(
    init: seeds::write(seeds::PIPELINES.iter().map(|text| text.as_bytes().to_vec())),
    |text: &str| read(text)
);
