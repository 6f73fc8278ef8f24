use crate::{Broker, soon};
use push0_bus::{BlobError, BlobWriter, Blobs, Service};
use push0_domain::{
    BlobRef, Payload, Payloads, PipelineId,
    payload::{BLOB_PART_LEN, CHUNK_LEN, INLINE_MAX},
    subject,
};
use std::time::Instant;

const PART: usize = BLOB_PART_LEN as usize;

fn demo() -> PipelineId {
    "demo".parse().expect("valid")
}

fn blobs(broker: &Broker) -> (Blobs, BlobWriter) {
    let blobs = broker.bus.blobs();
    let writer = blobs.of_service(Service::Operator, &demo(), 7);
    (blobs, writer)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from(at % 251).expect("small"))
        .collect()
}

async fn stored_messages(broker: &Broker) -> u64 {
    let stream = broker.jetstream().await.get_stream("PUSH0_BLOBS").await;
    stream.expect("provisioned").cached_info().state.messages
}

/// Stores a message as any client may, headers included. Returns the broker's refusal.
async fn publish(
    broker: &Broker,
    subject: String,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Option<String> {
    let mut map = async_nats::HeaderMap::new();
    headers.iter().for_each(|(name, value)| map.insert(*name, *value));
    let jetstream = broker.jetstream().await;
    let sent = jetstream.publish_with_headers(subject, map, body.into());
    sent.await
        .expect("sent")
        .await
        .err()
        .map(|error| error.to_string())
}

#[tokio::test]
async fn small_payloads_stay_in_the_message_and_large_ones_do_not() {
    let broker = Broker::start().await;
    let (blobs, writer) = blobs(&broker);
    for (len, inline) in [
        (0, true),
        (INLINE_MAX, true),
        (INLINE_MAX + 1, false),
        (PART, false),
        (PART + 1, false),
        (3 << 20, false),
    ] {
        let bytes = bytes(len);
        let payload = soon(writer.payload(&bytes)).await.unwrap();
        assert_eq!(matches!(payload, Payload::Inline(_)), inline, "{payload:?}");
        assert_eq!(payload.len(), len as u64);
        assert_eq!(soon(blobs.resolve(&payload)).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_thousand_tasks_that_read_blobs_at_once_use_no_consumers() {
    let broker = Broker::start().await;
    let (blobs, writer) = blobs(&broker);
    let bytes = vec![7; INLINE_MAX + 1];
    let blob = soon(writer.put(&bytes)).await.unwrap();
    let read = futures::future::join_all((0..1000).map(|_| blobs.get(&blob)));
    for got in soon(read).await {
        assert_eq!(got.unwrap(), bytes);
    }
    let stream = broker.jetstream().await.get_stream("PUSH0_BLOBS").await;
    assert_eq!(stream.unwrap().cached_info().state.consumer_count, 0);
}

#[tokio::test]
async fn the_same_bytes_are_stored_once_and_a_broken_upload_is_finished_by_the_next() {
    let broker = Broker::start().await;
    let (blobs, writer) = blobs(&broker);
    let bytes = bytes(3 * PART + 5);
    let blob = writer.name(&bytes).await;
    assert_eq!(blob.parts(), 4);
    // An upload broke after its third part.
    let part = bytes[2 * PART..3 * PART].to_vec();
    assert_eq!(
        publish(&broker, subject::blobs::part(&blob, 2), &[], part).await,
        None
    );
    let error = soon(blobs.get(&blob)).await.unwrap_err();
    assert!(
        matches!(error, BlobError::Missing(_)) && !error.is_transient(),
        "{error:?}"
    );
    for _ in 0..2 {
        assert_eq!(writer.put(&bytes).await.unwrap(), blob);
        assert_eq!(stored_messages(&broker).await, 4);
        assert_eq!(soon(blobs.get(&blob)).await.unwrap(), bytes);
    }
    let empty = writer.put(&[]).await.unwrap();
    assert!(soon(blobs.get(&empty)).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_bytes_of_two_blocks_are_stored_twice_and_removed_with_their_block() {
    let broker = Broker::start().await;
    let (blobs, writer) = blobs(&broker);
    let bytes = bytes(PART + 1);
    let seven = writer.put(&bytes).await.unwrap();
    let eight = blobs
        .of_service(Service::Operator, &demo(), 8)
        .put(&bytes)
        .await
        .unwrap();
    assert_eq!((seven.hash, stored_messages(&broker).await), (eight.hash, 4));
    let stored = blobs.stored().await.unwrap();
    let places: Vec<_> = stored.places.keys().map(|place| place.number).collect();
    assert_eq!((places, stored.strays), (vec![7, 8], Vec::new()));
    assert_eq!(
        blobs
            .remove(&subject::blobs::of_number(&demo(), 7))
            .await
            .unwrap(),
        2
    );
    assert!(matches!(
        blobs.get(&seven).await.unwrap_err(),
        BlobError::Missing(_)
    ));
    assert_eq!(soon(blobs.get(&eight)).await.unwrap(), bytes);
}

#[tokio::test]
async fn no_message_and_no_header_replaces_or_removes_a_blob() {
    let broker = Broker::start().await;
    let (blobs, writer) = blobs(&broker);
    let bytes = bytes(100_000);
    let blob = writer.put(&bytes).await.unwrap();
    let headers: [&[(&str, &str)]; 5] = [
        &[],
        &[("Nats-Rollup", "sub")],
        &[("Nats-Rollup", "all")],
        &[("Nats-TTL", "1s")],
        &[("Nats-Expected-Last-Sequence", "1")],
    ];
    for headers in headers {
        let refused = publish(&broker, subject::blobs::part(&blob, 0), headers, vec![1]).await;
        assert!(refused.is_some(), "{headers:?}");
    }
    // The same on a subject of its own, where a rollup would remove everything else.
    let other = writer.name(b"other").await;
    let refused = publish(
        &broker,
        subject::blobs::part(&other, 0),
        &[("Nats-Rollup", "all")],
        vec![1],
    )
    .await;
    assert!(refused.is_some());
    let large = vec![0; PART + 2048];
    assert!(
        publish(&broker, subject::blobs::part(&other, 0), &[], large)
            .await
            .is_some()
    );
    assert_eq!(soon(blobs.get(&blob)).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_blob_that_is_missing_or_not_what_it_should_be_is_not_returned() {
    let broker = Broker::start().await;
    let (blobs, writer) = blobs(&broker);
    let blob = writer.name(&bytes(100_000)).await;
    let error = soon(blobs.get(&blob)).await.unwrap_err();
    assert!(
        matches!(error, BlobError::Missing(_)) && !error.is_transient(),
        "{error:?}"
    );
    for other in [vec![8; 100_000], vec![7; 99_999], vec![7; 100_001], vec![]] {
        assert_eq!(
            publish(&broker, subject::blobs::part(&blob, 0), &[], other).await,
            None
        );
        let error = soon(blobs.get(&blob)).await.unwrap_err();
        assert!(
            matches!(error, BlobError::Corrupt(_)) && !error.is_transient(),
            "{error:?}"
        );
        blobs
            .remove(&subject::blobs::parts(&blob.place, blob.hash))
            .await
            .unwrap();
    }
    writer.put(&bytes(100_000)).await.unwrap();
    for len in [blob.len - 1, blob.len + 1] {
        let lying = BlobRef { len, ..blob.clone() };
        assert!(matches!(
            soon(blobs.get(&lying)).await.unwrap_err(),
            BlobError::Corrupt(_)
        ));
    }
}

#[tokio::test]
async fn a_payload_is_read_part_by_part_and_the_last_part_only_of_the_right_bytes() {
    let broker = Broker::start().await;
    let (blobs, writer) = blobs(&broker);
    let read = async |payload: &Payload| {
        let mut parts = soon(blobs.parts(payload)).await.unwrap();
        let (len, mut read) = (parts.len(), Vec::new());
        loop {
            match soon(parts.next()).await {
                Ok(Some(part)) => read.push(part.len()),
                Ok(None) => return (len, read, None),
                Err(error) => return (len, read, Some(error)),
            }
        }
    };
    let stored = bytes(2 * PART + 5);
    let blob = writer.put(&stored).await.unwrap();
    let (len, parts, error) = read(&Payload::Blob(blob)).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!((len, parts), (stored.len() as u64, vec![PART, PART, 5]));
    for inline in [vec![], vec![1, 2, 3]] {
        let (len, parts, _) = read(&Payload::Inline(inline.clone())).await;
        assert_eq!(
            (len, parts.iter().sum::<usize>()),
            (inline.len() as u64, inline.len())
        );
    }
    let blob = writer.name(&bytes(PART + 2)).await;
    for (at, part) in [(0, vec![9; PART]), (1, vec![9; 2])] {
        let subject = subject::blobs::part(&blob, at);
        assert_eq!(publish(&broker, subject, &[], part).await, None);
    }
    let (_, parts, error) = read(&Payload::Blob(blob)).await;
    assert_eq!(parts, [PART]);
    assert!(matches!(error, Some(BlobError::Corrupt(_))), "{error:?}");
}

#[tokio::test]
async fn one_entry_of_a_list_of_a_hundred_thousand_is_read_from_one_chunk() {
    let broker = Broker::start().await;
    let (blobs, writer) = blobs(&broker);
    let entry = |at: u32| Payload::Inline(at.to_le_bytes().repeat(4));
    let begun = Instant::now();
    let list = writer.list((0..100_000).map(entry).collect()).await.unwrap();
    println!("a list of 100,000 entries stored in {:?}", begun.elapsed());
    let Payloads::Chunked { count, chunks } = &list else {
        panic!("{list:?}")
    };
    assert_eq!(
        (*count, chunks.len()),
        (100_000, 100_000usize.div_ceil(CHUNK_LEN as usize))
    );
    assert!(list.inline_len() <= INLINE_MAX, "a message can carry it");
    assert_eq!(list.get(100_000), None);

    let wanted = 77_777;
    for (at, chunk) in chunks.iter().enumerate() {
        if at as u32 != wanted / CHUNK_LEN {
            let parts = subject::blobs::parts(&chunk.place, chunk.hash);
            assert_eq!(blobs.remove(&parts).await.unwrap(), 1);
        }
    }
    let begun = Instant::now();
    let read = blobs.resolve(&list.get(wanted).unwrap()).await.unwrap();
    println!("one entry of it read in {:?}", begun.elapsed());
    assert_eq!(read, wanted.to_le_bytes().repeat(4));
    let gone = blobs.resolve(&list.get(0).unwrap()).await.unwrap_err();
    assert!(matches!(gone, BlobError::Missing(_)), "{gone:?}");
}

#[tokio::test]
async fn a_list_of_large_entries_is_split_until_each_part_fits() {
    let broker = Broker::start().await;
    let (blobs, writer) = blobs(&broker);
    let entry = |at: u32| at.to_le_bytes().repeat(INLINE_MAX / 8);
    let list = writer
        .list((0..300).map(|at| Payload::Inline(entry(at))).collect())
        .await
        .unwrap();
    for at in [0, 255, 256, 299] {
        assert_eq!(
            soon(blobs.resolve(&list.get(at).unwrap())).await.unwrap(),
            entry(at)
        );
    }
    let short = writer.list(vec![Payload::empty(); 3]).await.unwrap();
    assert!(matches!(short, Payloads::List(_)));
}

#[tokio::test]
async fn an_entry_beyond_its_chunk_or_within_another_list_is_refused() {
    let broker = Broker::start().await;
    let (blobs, writer) = blobs(&broker);
    let list = writer
        .list(vec![Payload::Inline(vec![1; 1000]); 300])
        .await
        .unwrap();
    let Payloads::Chunked { chunks, .. } = &list else {
        panic!("{list:?}")
    };
    let beyond = Payload::Entry {
        chunk: chunks[1].clone(),
        entry: 44,
    };
    assert!(matches!(
        soon(blobs.resolve(&beyond)).await.unwrap_err(),
        BlobError::Entry { entry: 44, .. }
    ));
    let no_list = writer.put(&[0xff; 70_000]).await.unwrap();
    let wrong = Payload::Entry {
        chunk: no_list,
        entry: 0,
    };
    assert!(matches!(
        soon(blobs.resolve(&wrong)).await.unwrap_err(),
        BlobError::Entry { .. }
    ));
}
