use crate::strategy;
use proptest::prelude::*;
use push0_domain::{
    codec::{BODY_MAX, CodecError, Encoding, SCHEMA, decode, decode_described, encode},
    message::{
        BlockEvent, Control, DeadLetter, Emission, Failure, FailureClass, KnownBlock, Lease, ResultEvent,
        StageReady, TEXT_LEN_MAX, Task, TaskResult, clip,
    },
    pipeline::Pipeline,
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

const BOTH: [Encoding; 2] = [Encoding::Bincode, Encoding::Json];

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    for encoding in BOTH {
        let bytes = encode(value, encoding).expect("it is small");
        let read: T = decode(&bytes, encoding).expect("what was written can be read");
        assert_eq!(read, *value, "{encoding}");
        let mut longer = bytes.clone();
        longer.push(1);
        assert!(
            decode::<T>(&longer, encoding).is_err(),
            "{encoding}: a byte more is another message"
        );
        if let Some((_, shorter)) = bytes.split_last() {
            assert!(
                decode::<T>(shorter, encoding).is_err(),
                "{encoding}: a byte less is no message"
            );
        }
    }
}

macro_rules! every_body {
    ($($test:ident: $strategy:ident),* $(,)?) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(128))]
            $(
                #[test]
                fn $test(value in strategy::$strategy()) {
                    round_trip(&value);
                }
            )*
        }
    };
}

every_body! {
    block_events_are_read_as_they_were_written: block_event,
    known_blocks_are_read_as_they_were_written: known_block,
    ready_stages_are_read_as_they_were_written: stage_ready,
    tasks_are_read_as_they_were_written: task,
    results_are_read_as_they_were_written: task_result,
    result_events_are_read_as_they_were_written: result_event,
    leases_are_read_as_they_were_written: lease,
    orders_are_read_as_they_were_written: control,
    emissions_are_read_as_they_were_written: emission,
    dead_letters_are_read_as_they_were_written: dead_letter,
    events_are_read_as_they_were_written: event,
}

/// Decodes bytes as every type of message. The results do not matter; decoding must end without a panic.
fn read_as_anything(bytes: &[u8]) {
    for encoding in BOTH {
        let _ = decode::<BlockEvent>(bytes, encoding);
        let _ = decode::<KnownBlock>(bytes, encoding);
        let _ = decode::<StageReady>(bytes, encoding);
        let _ = decode::<Task>(bytes, encoding);
        let _ = decode::<TaskResult>(bytes, encoding);
        let _ = decode::<ResultEvent>(bytes, encoding);
        let _ = decode::<Lease>(bytes, encoding);
        let _ = decode::<Control>(bytes, encoding);
        let _ = decode::<Emission>(bytes, encoding);
        let _ = decode::<DeadLetter>(bytes, encoding);
        let _ = decode::<Pipeline>(bytes, encoding);
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        read_as_anything(&bytes);
    }

    /// Damaged messages are more dangerous than random bytes, because decoding gets further.
    #[test]
    fn damaged_messages_never_panic_the_decoder(
        task in strategy::task(),
        event in strategy::result_event(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for encoding in BOTH {
            for mut bytes in [encode(&task, encoding).unwrap(), encode(&event, encoding).unwrap()] {
                for (at, byte) in &damage {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
                read_as_anything(&bytes);
                bytes.truncate(cut.index(bytes.len()));
                read_as_anything(&bytes);
            }
        }
    }

    #[test]
    fn a_clipped_text_is_the_end_of_the_text(text in "\\PC{0,6000}") {
        let clipped = clip(&text);
        prop_assert!(clipped.len() <= TEXT_LEN_MAX && text.ends_with(&clipped));
        prop_assert!(text.len() <= TEXT_LEN_MAX || clipped.len() > TEXT_LEN_MAX - 4);
        // A prover may write more than it should.
        let failure = Failure { class: FailureClass::Retryable, message: text };
        for encoding in BOTH {
            let written = encode(&failure, encoding).expect("it is small");
            prop_assert_eq!(&decode::<Failure>(&written, encoding).expect("readable").message, &clipped);
        }
    }
}

#[test]
fn a_length_that_no_message_has_does_not_allocate() {
    // A list with an announced length of 2^64 - 1 entries.
    let mut bytes = vec![0xfd];
    bytes.extend([0xff; 8]);
    read_as_anything(&bytes);
    for kind in 0..8 {
        let mut bytes = vec![kind, 0xfd];
        bytes.extend([0xff; 64]);
        read_as_anything(&bytes);
    }
}

#[test]
fn deep_json_is_refused_and_does_not_overflow_the_stack() {
    let deep = "[".repeat(500_000);
    assert!(decode::<Task>(deep.as_bytes(), Encoding::Json).is_err());
    let deep = format!("{{\"header\":{}", "{\"id\":".repeat(100_000));
    assert!(decode::<Task>(deep.as_bytes(), Encoding::Json).is_err());
}

#[test]
fn bodies_beyond_the_limit_are_neither_written_nor_read() {
    let large = "x".repeat(BODY_MAX + 1);
    for encoding in BOTH {
        assert!(matches!(encode(&large, encoding), Err(CodecError::TooLarge(_))));
        assert!(matches!(
            decode::<String>(large.as_bytes(), encoding),
            Err(CodecError::TooLarge(_))
        ));
    }
}

#[test]
fn the_headers_say_how_a_body_is_read() {
    let json = encode(&7u64, Encoding::Json).unwrap();
    let bincode = encode(&7u64, Encoding::Bincode).unwrap();
    assert_eq!(decode_described::<u64>(&json, None, None).unwrap(), 7);
    assert_eq!(
        decode_described::<u64>(&json, Some(SCHEMA), Some("json")).unwrap(),
        7
    );
    assert_eq!(
        decode_described::<u64>(&bincode, Some(SCHEMA), Some("bincode")).unwrap(),
        7
    );
    assert!(matches!(
        decode_described::<u64>(&json, Some("2"), None),
        Err(CodecError::Schema(_))
    ));
    assert!(matches!(
        decode_described::<u64>(&json, None, Some("xml")),
        Err(CodecError::Encoding(_))
    ));
}
