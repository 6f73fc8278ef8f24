use crate::{Broker, attempt, message, soon, trace};
use push0_bus::{Limits, Message, PublishError, Replay, Stream};
use push0_domain::{
    Announcement,
    codec::Encoding,
    message::{BlockEvent, Cancel, EndReason},
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
    // DEAD gets 3 % of 10 MB, which is a few hundred kilobytes.
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
    let budget = Duration::from_millis(300);
    let begun = std::time::Instant::now();
    let error = broker.bus.publish_patiently(letter, budget).await.unwrap_err();
    assert!(matches!(error, PublishError::Full { .. }), "{error:?}");
    assert!(begun.elapsed() >= budget && begun.elapsed() < crate::SOON);
}
