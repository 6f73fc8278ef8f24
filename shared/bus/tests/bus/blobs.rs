use crate::{Broker, soon};
use push0_bus::{BlobError, Blobs};
use push0_domain::{
    BlobRef, Payload, Payloads,
    payload::{CHUNK_LEN, INLINE_MAX},
};
use std::time::Instant;

async fn blobs(broker: &Broker) -> Blobs {
    broker.bus.blobs().await.expect("provisioned")
}

async fn raw_store(broker: &Broker) -> async_nats::jetstream::object_store::ObjectStore {
    broker
        .jetstream()
        .await
        .get_object_store("push0_blobs")
        .await
        .expect("provisioned")
}

async fn stored_messages(broker: &Broker) -> u64 {
    let stream = broker
        .jetstream()
        .await
        .get_stream("OBJ_push0_blobs")
        .await
        .expect("provisioned");
    stream.cached_info().state.messages
}

#[tokio::test]
async fn small_payloads_stay_in_the_message_and_large_ones_do_not() {
    let broker = Broker::start().await;
    let blobs = blobs(&broker).await;
    for (len, inline) in [
        (0, true),
        (INLINE_MAX, true),
        (INLINE_MAX + 1, false),
        (3 << 20, false),
    ] {
        let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let payload = soon(blobs.payload(&bytes)).await.unwrap();
        assert_eq!(matches!(payload, Payload::Inline(_)), inline, "{payload:?}");
        assert_eq!(payload.len(), len as u64);
        assert_eq!(soon(blobs.resolve(&payload)).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_thousand_tasks_that_read_small_blobs_at_once_use_no_consumers() {
    let broker = Broker::start().await;
    let blobs = blobs(&broker).await;
    let bytes = vec![7; INLINE_MAX + 1];
    let blob = soon(blobs.put(&bytes)).await.unwrap();
    let read = futures::future::join_all((0..1000).map(|_| blobs.get(&blob)));
    for got in soon(read).await {
        assert_eq!(got.unwrap(), bytes);
    }
    let stream = broker.jetstream().await.get_stream("OBJ_push0_blobs").await;
    assert_eq!(stream.unwrap().cached_info().state.consumer_count, 0);
}

#[tokio::test]
async fn the_same_bytes_are_stored_once() {
    let broker = Broker::start().await;
    let blobs = blobs(&broker).await;
    let bytes = vec![5; 100_000];
    let first = blobs.put(&bytes).await.unwrap();
    let messages = stored_messages(&broker).await;
    assert_eq!(blobs.put(&bytes).await.unwrap(), first);
    assert_eq!(stored_messages(&broker).await, messages);
    assert_eq!(blobs.put(&[]).await.unwrap(), blobs.put(&[]).await.unwrap());
    assert!(soon(blobs.get(&BlobRef::of(&[]))).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_blob_that_is_missing_or_not_what_it_should_be_is_not_returned() {
    let broker = Broker::start().await;
    let (blobs, raw) = (blobs(&broker).await, raw_store(&broker).await);
    let never_stored = BlobRef::of(b"never stored");
    let error = soon(blobs.get(&never_stored)).await.unwrap_err();
    assert!(
        matches!(error, BlobError::Missing(_)) && !error.is_transient(),
        "{error:?}"
    );

    let bytes = vec![7; 100_000];
    for other in [vec![8; 100_000], vec![7; 99_999], vec![7; 100_001], vec![]] {
        let blob = BlobRef::of(&bytes);
        raw.put(blob.hash.to_string().as_str(), &mut &other[..])
            .await
            .unwrap();
        let error = soon(blobs.get(&blob)).await.unwrap_err();
        assert!(
            matches!(error, BlobError::Corrupt(_)) && !error.is_transient(),
            "{} bytes: {error:?}",
            other.len()
        );
    }
    let blob = blobs.put(&bytes).await.unwrap();
    let lying = BlobRef {
        len: blob.len - 1,
        ..blob
    };
    assert!(matches!(
        soon(blobs.get(&lying)).await.unwrap_err(),
        BlobError::Corrupt(_)
    ));
}

#[tokio::test]
async fn corrupt_bytes_of_the_right_length_are_replaced_when_they_are_stored_again() {
    let broker = Broker::start().await;
    let (blobs, raw) = (blobs(&broker).await, raw_store(&broker).await);
    let bytes = vec![7; 100_000];
    let name = BlobRef::of(&bytes).hash.to_string();
    raw.put(name.as_str(), &mut &vec![8; 90_000][..]).await.unwrap();
    let blob = blobs.put(&bytes).await.unwrap();
    assert_eq!(soon(blobs.get(&blob)).await.unwrap(), bytes);
    raw.delete(&name).await.unwrap();
    assert!(matches!(
        soon(blobs.get(&blob)).await.unwrap_err(),
        BlobError::Missing(_)
    ));
    blobs.put(&bytes).await.unwrap();
    assert_eq!(soon(blobs.get(&blob)).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_blob_whose_bytes_are_gone_is_missing_and_nobody_waits_for_them() {
    let broker = Broker::start().await;
    let blobs = blobs(&broker).await;
    let bytes = vec![7; 300_000];
    let blob = blobs.put(&bytes).await.unwrap();
    let stream = broker
        .jetstream()
        .await
        .get_stream("OBJ_push0_blobs")
        .await
        .unwrap();
    stream.purge().filter("$O.push0_blobs.C.>").await.unwrap();
    let read = tokio::time::timeout(std::time::Duration::from_secs(10), blobs.get(&blob)).await;
    let error = read.expect("reading ends").unwrap_err();
    assert!(matches!(error, BlobError::Missing(_)), "{error:?}");
    blobs.put(&bytes).await.unwrap();
    assert_eq!(
        soon(blobs.get(&blob)).await.unwrap(),
        bytes,
        "its producer can store it again"
    );
}

#[tokio::test]
async fn one_entry_of_a_list_of_a_hundred_thousand_is_read_from_one_chunk() {
    let broker = Broker::start().await;
    let blobs = blobs(&broker).await;
    let entry = |at: u32| Payload::Inline(at.to_le_bytes().repeat(4));
    let begun = Instant::now();
    let list = blobs.list((0..100_000).map(entry).collect()).await.unwrap();
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
    let raw = raw_store(&broker).await;
    for (at, chunk) in chunks.iter().enumerate() {
        if at as u32 != wanted / CHUNK_LEN {
            raw.delete(chunk.hash.to_string()).await.unwrap();
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
    let blobs = blobs(&broker).await;
    let entry = |at: u32| at.to_le_bytes().repeat(INLINE_MAX / 8);
    let list = blobs
        .list((0..300).map(|at| Payload::Inline(entry(at))).collect())
        .await
        .unwrap();
    for at in [0, 255, 256, 299] {
        assert_eq!(
            soon(blobs.resolve(&list.get(at).unwrap())).await.unwrap(),
            entry(at)
        );
    }
    let short = blobs.list(vec![Payload::empty(); 3]).await.unwrap();
    assert!(matches!(short, Payloads::List(_)));
}

#[tokio::test]
async fn an_entry_beyond_its_chunk_or_within_another_list_is_refused() {
    let broker = Broker::start().await;
    let blobs = blobs(&broker).await;
    let list = blobs
        .list(vec![Payload::Inline(vec![1; 1000]); 300])
        .await
        .unwrap();
    let Payloads::Chunked { chunks, .. } = &list else {
        panic!("{list:?}")
    };
    let beyond = Payload::Entry {
        chunk: chunks[1],
        entry: 44,
    };
    assert!(matches!(
        soon(blobs.resolve(&beyond)).await.unwrap_err(),
        BlobError::Entry { entry: 44, .. }
    ));
    let no_list = blobs.put(&[0xff; 70_000]).await.unwrap();
    let wrong = Payload::Entry {
        chunk: no_list,
        entry: 0,
    };
    assert!(matches!(
        soon(blobs.resolve(&wrong)).await.unwrap_err(),
        BlobError::Entry { .. }
    ));
}
