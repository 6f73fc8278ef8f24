use crate::{Broker, message, soon};
use push0_bus::{Bus, NatsConfig, Stream, UNREAD_MAX};
use push0_domain::subject;
use push0_harness::wait_for;
use std::time::{Duration, Instant};

#[tokio::test]
async fn an_interruption_is_heard_when_the_broker_is_killed() {
    let mut broker = Broker::start().await;
    let bus = broker.bus.clone();
    let heard = bus.interrupted();
    tokio::pin!(heard);
    crate::never(heard.as_mut()).await;
    let begun = Instant::now();
    broker.server.kill();
    soon(heard).await;
    println!("a killed broker is noticed after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(!bus.connection().borrow().up);
    soon(bus.interrupted()).await;
    broker.server.restart().await;
    soon(bus.connected()).await;
    assert_eq!(bus.connection().borrow().interruptions, 1);
}

#[tokio::test]
async fn a_patient_publish_outlasts_a_restart_of_the_broker() {
    let mut broker = Broker::start().await;
    let demo = "demo".parse().unwrap();
    broker.server.kill();
    let publish = broker
        .bus
        .publish_patiently(message(subject::proof(&demo, 1), &1u64), Duration::from_secs(20));
    let (stored, ()) = tokio::join!(publish, broker.server.restart());
    stored.unwrap();
    let kept = broker
        .bus
        .last::<u64>(Stream::Proofs, &subject::proof(&demo, 1))
        .await
        .unwrap();
    assert_eq!(kept.unwrap().body.unwrap(), 1);
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_when_the_broker_is_killed() {
    let mut broker = Broker::start().await;
    let demo = "demo".parse().unwrap();
    let mut last = 0;
    for number in 1..=500u64 {
        last = broker
            .bus
            .publish(message(subject::proof(&demo, number), &number))
            .await
            .unwrap()
            .sequence;
    }
    broker.server.kill();
    broker.server.restart().await;
    soon(broker.bus.connected()).await;
    let subjects = subject::proofs_of_pipeline(&demo);
    let kept = wait_for("the proofs", crate::SOON, async || {
        broker
            .bus
            .scan::<u64>(Stream::Proofs, &subjects, 1, 1000)
            .await
            .map_err(|e| e.to_string())
    })
    .await;
    assert_eq!((kept.len(), kept[499].sequence), (500, last));
}

#[tokio::test]
async fn a_broker_that_comes_later_is_found() {
    let mut broker = Broker::start().await;
    broker.server.kill();
    let config = NatsConfig {
        url: broker.server.url(),
        ..NatsConfig::default()
    };
    let early = Bus::connect(&config, "early").await.unwrap();
    assert!(!early.connection().borrow().up);
    let begun = Instant::now();
    let ((), ()) = tokio::join!(soon(early.connected()), broker.server.restart());
    println!("a broker that came later was found after {:?}", begun.elapsed());
    early.check_provisioned().await.unwrap();
}

#[tokio::test]
async fn a_frozen_broker_counts_as_an_interruption() {
    let broker = Broker::start().await;
    let begun = Instant::now();
    broker.server.pause();
    tokio::time::timeout(Duration::from_secs(10), broker.bus.interrupted())
        .await
        .expect("it is noticed");
    println!("a frozen broker is noticed after {:?}", begun.elapsed());
    broker.server.resume();
    soon(broker.bus.connected()).await;
}

#[tokio::test]
async fn a_url_that_cannot_work_is_refused_at_once_without_its_secrets() {
    let config = NatsConfig {
        url: "nats://user:secret@:::".into(),
        ..NatsConfig::default()
    };
    let error = Bus::connect(&config, "test").await.err().unwrap().to_string();
    assert!(error.contains("nats.url") && !error.contains("secret"), "{error}");
}

#[tokio::test]
async fn a_publish_that_was_on_its_way_when_the_broker_died_is_stored() {
    let mut broker = Broker::start().await;
    let demo = "demo".parse().unwrap();
    broker.server.pause();
    let publish = broker
        .bus
        .publish_patiently(message(subject::proof(&demo, 1), &1u64), Duration::from_secs(20));
    let begun = Instant::now();
    let (stored, ()) = tokio::join!(publish, async {
        crate::never(std::future::pending::<()>()).await;
        broker.server.restart().await;
    });
    stored.unwrap();
    println!(
        "a publish on its way when the broker died is stored after {:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn half_a_client_certificate_is_refused_by_the_missing_key() {
    let config = NatsConfig {
        tls_cert: Some("cert.pem".into()),
        ..NatsConfig::default()
    };
    let refused = Bus::connect(&config, "test").await.err().unwrap();
    assert!(refused.to_string().contains("without nats.tls_key"), "{refused}");
}

#[tokio::test]
async fn a_subscription_that_is_not_read_keeps_a_bounded_number_and_counts_as_interrupted() {
    let broker = Broker::start().await;
    let subject = subject::leader("test");
    let mut unread = broker.bus.listen([subject.clone()]).await.unwrap();
    broker.bus.flush().await;
    let sender = broker.jetstream().await;
    for _ in 0..UNREAD_MAX + 100 {
        sender.client().publish(subject.clone(), "".into()).await.unwrap();
    }
    sender.client().flush().await.unwrap();
    let mut connection = broker.bus.connection();
    soon(connection.wait_for(|c| c.interruptions > 0)).await.unwrap();
    let mut kept = 0;
    while tokio::time::timeout(Duration::from_millis(200), unread.next())
        .await
        .is_ok()
    {
        kept += 1;
    }
    // The last ones may arrive while the first are read.
    assert!((UNREAD_MAX..UNREAD_MAX + 100).contains(&kept), "{kept}");
}
