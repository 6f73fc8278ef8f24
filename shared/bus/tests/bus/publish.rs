use crate::{Broker, attempt, message, soon, trace};
use push0_bus::{DeadLetters, Limits, Message, PublishError, Replay, Stream};
use push0_domain::{
    Announcement,
    codec::{CodecError, Encoding},
    message::{BlockEvent, Cancel, DeadLetter, EndReason},
    subject,
    wanted::{Claim, Claims},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

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
        deliveries.done(delivery.sequence).await;
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

/// A task announced at this time.
#[derive(Serialize, Deserialize)]
struct Aged(u64);

impl Claims for Aged {
    fn claim(&self) -> Claim {
        Claim {
            announcement: Announcement(self.0),
            is_retry: false,
        }
    }
}

#[tokio::test]
async fn a_newer_claim_takes_the_place_of_an_older_one_and_of_nothing_else() {
    let broker = Broker::start().await;
    let task = subject::task(&attempt(1, 0));
    for (age, lies) in [(2, 2), (2, 2), (1, 2), (3, 3), (2, 3)] {
        let before = broker.bus.last::<Aged>(Stream::Tasks, &task).await.unwrap();
        let sent = message(task.clone(), &Aged(age)).claiming::<Aged>(Stream::Tasks, Aged(age).claim());
        let stored = broker.bus.publish_patiently(sent, Duration::from_secs(10)).await;
        let is_new = before.is_none_or(|before| before.body.unwrap().0 < age);
        assert_eq!(stored.is_ok(), is_new, "{age}: {stored:?}");
        let kept = broker.bus.last::<Aged>(Stream::Tasks, &task).await.unwrap();
        assert_eq!(kept.unwrap().body.unwrap().0, lies);
    }
}

#[tokio::test]
async fn a_full_stream_says_so_and_takes_more_once_there_is_room() {
    // PROOFS gets 15 % of 2 MB, which is a few hundred kilobytes.
    let demo = "demo".parse().unwrap();
    let broker = Broker::with_limits(&Limits {
        store_bytes: 2_000_000,
        ..Limits::default()
    })
    .await;
    let letter = |at: u32| message(subject::proof(&demo, at.into()), &"x".repeat(50_000));
    let mut stored = 0;
    let error = loop {
        match broker.bus.publish(letter(stored)).await {
            Ok(_) if stored < 100 => stored += 1,
            outcome => break outcome.unwrap_err(),
        }
    };
    assert!(matches!(error, PublishError::Full { .. }), "{error:?}");
    assert!(error.is_transient());
    let level = broker.bus.level(Stream::Proofs).await.unwrap();
    assert_eq!(level.messages, u64::from(stored));
    assert!(
        stored > 0 && level.bytes <= level.bytes_max && level.bytes_max - level.bytes < 60_000,
        "{level:?}"
    );

    let patient = broker.bus.publish_patiently(letter(stored), crate::SOON);
    let records = subject::all(subject::Kind::Proof);
    let make_room = broker.bus.purge(Stream::Proofs, &records);
    let (patient, purged) = tokio::join!(patient, make_room);
    assert_eq!(purged.unwrap(), u64::from(stored));
    patient.unwrap();
}

#[tokio::test]
async fn patience_ends_with_its_budget() {
    let broker = Broker::with_limits(&Limits {
        store_bytes: 200_000,
        ..Limits::default()
    })
    .await;
    let record = message(subject::proof(&"demo".parse().unwrap(), 7), &"x".repeat(50_000));
    let budget = Duration::from_millis(300);
    let begun = std::time::Instant::now();
    let error = broker.bus.publish_patiently(record, budget).await.unwrap_err();
    assert!(matches!(error, PublishError::Full { .. }), "{error:?}");
    assert!(begun.elapsed() >= budget && begun.elapsed() < crate::SOON);
}

#[tokio::test]
async fn a_full_stream_of_dead_letters_drops_the_oldest_and_keeps_the_first_of_an_id() {
    let broker = Broker::with_limits(&Limits {
        store_bytes: 10_000_000,
        ..Limits::default()
    })
    .await;
    let letters = DeadLetters::new(broker.bus.clone());
    let error = CodecError::Refused("a test".into());
    let store = async |sequence| {
        let stored = letters.unreadable(Stream::Tasks, "x", sequence, &[7; 16_000], &error);
        soon(stored).await.unwrap();
    };
    for sequence in 1..=100 {
        store(sequence).await;
    }
    let subjects = subject::all(subject::Kind::Dead);
    let read = async || {
        broker
            .bus
            .scan::<DeadLetter>(Stream::Dead, &subjects, 1, 1000)
            .await
            .unwrap()
    };
    let kept = read().await;
    assert!(kept.len() > 5 && kept.len() < 30, "{} letters", kept.len());
    let last = kept.last().unwrap();
    assert_eq!(last.body.as_ref().unwrap().id, "push0_tasks-100");
    store(100).await;
    assert_eq!(read().await.last().unwrap().sequence, last.sequence);
}
