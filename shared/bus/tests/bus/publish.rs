use crate::{Broker, attempt, message, soon, trace};
use push0_bus::{Expect, Limits, Message, PublishError, Replay, Stream};
use push0_domain::{
    codec::Encoding,
    message::{BlockEvent, Cancel, EndReason},
    subject,
};

#[tokio::test]
async fn a_message_arrives_as_it_was_sent_in_both_encodings() {
    let broker = Broker::start().await;
    let pipeline: push0_domain::PipelineId = "demo".parse().unwrap();
    let body = BlockEvent::Cancelled(Cancel {
        pipeline: pipeline.clone(),
        first: 3,
        last: 9,
        hashes: vec![],
        reason: EndReason::Cancelled { note: "ö".into() },
    });
    let replay = Replay {
        stream: Stream::Blocks,
        consumer: "dispatcher-demo".into(),
        filters: vec![subject::block(&pipeline)],
    };
    let mut deliveries = broker.bus.replay::<BlockEvent>(&replay).await.unwrap();
    for (at, encoding) in [Encoding::Bincode, Encoding::Json].into_iter().enumerate() {
        let message = Message::encoded(subject::block(&pipeline), &body, &trace(), encoding).unwrap();
        let stored = broker.bus.publish(message).await.unwrap();
        let delivery = soon(deliveries.next()).await.unwrap();
        assert_eq!(delivery.body, body);
        assert_eq!(delivery.trace, trace());
        assert_eq!(delivery.subject, subject::block(&pipeline));
        assert_eq!((delivery.sequence, delivery.deliveries), (stored.sequence, 1));
        assert_eq!(delivery.sequence, at as u64 + 1);
        let age = push0_bus::now().since(delivery.stored_at);
        assert!(delivery.stored_at.0 > 0 && age.as_secs() < 60, "{age:?}");
        delivery.ack.done().await;
    }
}

#[tokio::test]
async fn a_subject_of_tasks_holds_one_message() {
    let broker = Broker::start().await;
    let task = subject::task(&attempt(1, 0));
    broker.bus.publish(message(task.clone(), &1u64)).await.unwrap();
    let error = broker
        .bus
        .publish(message(task.clone(), &2u64))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PublishError::Occupied { subject } if *subject == task),
        "{error:?}"
    );
    assert!(!error.is_transient());
    broker
        .bus
        .publish(message(subject::task(&attempt(1, 1)), &3u64))
        .await
        .unwrap();
    let kept = broker
        .bus
        .last::<u64>(Stream::Tasks, &task)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept.body.unwrap(), 1);
}

#[tokio::test]
async fn a_proof_is_stored_only_if_the_frontier_is_where_it_was_seen() {
    let broker = Broker::start().await;
    let demo = "demo".parse().unwrap();
    let other = "other".parse().unwrap();
    let at = |last_sequence| Expect {
        subjects: subject::proofs_of_pipeline(&demo),
        last_sequence,
    };
    let proof = |number: u64| message(subject::proof(&demo, number), &number);
    let first = broker.bus.publish(proof(1).expect(&at(0))).await.unwrap();
    // Another pipeline's proofs move the stream on, not this frontier.
    broker
        .bus
        .publish(message(subject::proof(&other, 1), &1u64))
        .await
        .unwrap();
    let second = broker
        .bus
        .publish(proof(2).expect(&at(first.sequence)))
        .await
        .unwrap();
    for stale in [0, first.sequence, second.sequence + 1] {
        let error = broker.bus.publish(proof(3).expect(&at(stale))).await.unwrap_err();
        assert!(
            matches!(error, PublishError::Unexpected { .. }),
            "{stale}: {error:?}"
        );
        assert!(!error.is_transient());
    }
    let all = broker
        .bus
        .scan::<u64>(Stream::Proofs, &subject::proofs_of_pipeline(&demo), 1, 10)
        .await
        .unwrap();
    assert_eq!(
        all.into_iter().map(|kept| kept.body.unwrap()).collect::<Vec<_>>(),
        [1, 2]
    );
}

#[tokio::test]
async fn a_batch_is_stored_in_order_or_not_at_all() {
    let broker = Broker::start().await;
    let demo = "demo".parse().unwrap();
    let subjects = subject::proofs_of_pipeline(&demo);
    let proof = |number: u64| message(subject::proof(&demo, number), &number);
    let at = |last_sequence| Expect {
        subjects: subjects.clone(),
        last_sequence,
    };
    let numbers = async || {
        let all = broker
            .bus
            .scan::<u64>(Stream::Proofs, &subjects, 1, 1000)
            .await
            .unwrap();
        all.into_iter().map(|kept| kept.body.unwrap()).collect::<Vec<_>>()
    };
    let mut batch: Vec<Message> = (1..=100).map(proof).collect();
    batch[0] = proof(1).expect(&at(0));
    let stored = broker.bus.publish_batch(batch).await.unwrap();
    assert_eq!(numbers().await, (1..=100).collect::<Vec<u64>>());
    let last = broker
        .bus
        .last::<u64>(Stream::Proofs, &subjects)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stored.sequence, last.sequence);

    let mut late: Vec<Message> = (101..=110).map(proof).collect();
    late[0] = proof(101).expect(&at(5));
    let error = broker.bus.publish_batch(late).await.unwrap_err();
    assert!(matches!(error, PublishError::Unexpected { .. }), "{error:?}");
    assert_eq!(numbers().await.len(), 100, "nothing of a refused batch is stored");

    broker
        .bus
        .publish_batch(vec![proof(101).expect(&at(stored.sequence))])
        .await
        .unwrap();
    assert_eq!(numbers().await.len(), 101, "a batch of one is a batch");
}

#[tokio::test]
async fn a_full_stream_says_so_and_takes_more_once_there_is_room() {
    // 3 % of 10 MB for DEAD: a few hundred kilobytes.
    let broker = Broker::with_limits(&Limits {
        store_bytes: 10_000_000,
        ..Limits::default()
    })
    .await;
    let letter = |at: u32| message(subject::dead(None, &format!("x{at}")), &"x".repeat(50_000));
    let mut stored = 0;
    let error = loop {
        match broker.bus.publish(letter(stored)).await {
            Ok(_) if stored < 100 => stored += 1,
            outcome => break outcome.unwrap_err(),
        }
    };
    assert!(matches!(error, PublishError::Full { .. }), "{error:?}");
    assert!(error.is_transient());
    let level = broker.bus.level(Stream::Dead).await.unwrap();
    assert_eq!(level.messages, u64::from(stored));
    assert!(
        stored > 0 && level.bytes <= level.bytes_max && level.bytes_max - level.bytes < 60_000,
        "{level:?}"
    );

    let patient = broker.bus.publish_patiently(letter(stored), crate::SOON);
    let letters = subject::all(subject::Kind::Dead);
    let make_room = broker.bus.purge(Stream::Dead, &letters);
    let (patient, purged) = tokio::join!(patient, make_room);
    assert_eq!(purged.unwrap(), u64::from(stored));
    patient.unwrap();
}

#[tokio::test]
async fn patience_ends_with_its_budget() {
    let broker = Broker::with_limits(&Limits {
        store_bytes: 1_000_000,
        ..Limits::default()
    })
    .await;
    let letter = message(subject::dead(None, "x"), &"x".repeat(50_000));
    let budget = std::time::Duration::from_millis(300);
    let begun = std::time::Instant::now();
    let error = broker.bus.publish_patiently(letter, budget).await.unwrap_err();
    assert!(matches!(error, PublishError::Full { .. }), "{error:?}");
    assert!(begun.elapsed() >= budget && begun.elapsed() < crate::SOON);
}
