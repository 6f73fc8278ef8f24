use crate::{Broker, SOON, attempt, message, mock, never, soon};
use push0_bus::{Delivery, Puller, Stream, consumer_of_tasks};
use push0_domain::subject;
use push0_harness::wait_for;
use std::time::{Duration, Instant};

async fn puller(broker: &Broker) -> Puller {
    let bound = broker
        .bus
        .puller(Stream::Tasks, &consumer_of_tasks(&mock()))
        .await;
    bound.expect("provisioned")
}

async fn release(broker: &Broker, blocks: std::ops::Range<u64>) {
    for block in blocks {
        let released = broker
            .bus
            .publish_patiently(message(subject::task(&attempt(block, 0)), &block), SOON)
            .await;
        released.expect("stored");
    }
}

/// Returns how many deliveries are unacknowledged.
async fn handed_out(broker: &Broker) -> usize {
    let stream = broker
        .jetstream()
        .await
        .get_stream(Stream::Tasks.name())
        .await
        .expect("there");
    stream
        .consumer_info(consumer_of_tasks(&mock()))
        .await
        .expect("there")
        .num_ack_pending
}

/// Takes one delivery for each place, and holds them all.
async fn fill(puller: &mut Puller, places: usize) -> Vec<Delivery<u64>> {
    let mut held = Vec::new();
    while held.len() < places {
        held.push(soon(puller.next(places - held.len())).await.expect("a delivery"));
    }
    held
}

#[tokio::test]
async fn no_more_is_taken_than_there_are_free_places() {
    let broker = Broker::start().await;
    release(&broker, 0..10).await;
    let mut puller = puller(&broker).await;
    let mut held = fill(&mut puller, 3).await;
    assert_eq!(held.iter().map(|d| d.body).collect::<Vec<_>>(), [0, 1, 2]);
    never(puller.next::<u64>(0)).await;
    assert_eq!(handed_out(&broker).await, 3);
    for next in 3..10 {
        held.remove(0).ack.done().await;
        held.push(soon(puller.next(1)).await.unwrap());
        assert_eq!(held[2].body, next);
        assert_eq!(handed_out(&broker).await, 3);
    }
}

#[tokio::test]
async fn a_task_reaches_a_waiting_puller_at_once() {
    let broker = Broker::start().await;
    let mut puller = puller(&broker).await;
    let begun = Instant::now();
    let (delivery, ()) = tokio::join!(soon(puller.next::<u64>(1)), release(&broker, 0..1));
    assert_eq!(delivery.unwrap().body, 0);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_delivery_tells_how_long_its_message_waited_for_a_place() {
    let broker = Broker::start().await;
    let mut puller = puller(&broker).await;
    let (ready, ()) = tokio::join!(soon(puller.next::<u64>(1)), release(&broker, 0..1));
    assert_eq!(ready.unwrap().waited, Duration::ZERO);
    release(&broker, 1..2).await;
    let wait = Duration::from_millis(300);
    // wait: no place is open for this time
    tokio::time::sleep(wait).await;
    let late = soon(puller.next::<u64>(1)).await.unwrap();
    assert!(late.waited >= wait && late.waited < SOON, "{:?}", late.waited);
    // The place of the expired request was open before the message came.
    let expired = Duration::from_millis(2_300);
    assert!(
        tokio::time::timeout(expired, puller.next::<u64>(1))
            .await
            .is_err()
    );
    release(&broker, 2..3).await;
    let again = soon(puller.next::<u64>(1)).await.unwrap();
    assert_eq!((again.body, again.waited), (2, Duration::ZERO));
}

#[tokio::test]
async fn credits_come_back_when_a_request_expires() {
    let broker = Broker::start().await;
    let mut puller = puller(&broker).await;
    // The broker keeps a pull request for 2 s.
    let nothing = tokio::time::timeout(Duration::from_millis(2_700), puller.next::<u64>(2)).await;
    assert!(nothing.is_err());
    release(&broker, 0..4).await;
    let held = fill(&mut puller, 2).await;
    assert_eq!(held.len(), 2);
    never(puller.next::<u64>(0)).await;
    assert_eq!(handed_out(&broker).await, 2);
}

#[tokio::test]
async fn a_puller_survives_a_restart_of_the_broker() {
    let mut broker = Broker::start().await;
    let mut puller = puller(&broker).await;
    never(puller.next::<u64>(1)).await;
    broker.server.restart().await;
    let begun = Instant::now();
    let (delivery, ()) = tokio::join!(soon(puller.next::<u64>(1)), release(&broker, 0..1));
    println!(
        "first delivery after a restart of the broker: {:?}",
        begun.elapsed()
    );
    assert_eq!(delivery.unwrap().body, 0);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_restart_of_the_broker_costs_no_place_and_gains_none() {
    let mut broker = Broker::start().await;
    let mut puller = puller(&broker).await;
    release(&broker, 0..2).await;
    // Two of four places are taken. The credits of the other two are lost with the broker.
    let mut held = fill(&mut puller, 2).await;
    never(puller.next::<u64>(2)).await;
    broker.server.kill();
    // Calls to `next` while the broker is down must not pile up requests.
    for _ in 0..3 {
        never(puller.next::<u64>(2)).await;
    }
    broker.server.restart().await;
    let begun = Instant::now();
    release(&broker, 2..20).await;
    while held.len() < 4 {
        held.push(soon(puller.next(4 - held.len())).await.unwrap());
    }
    // The credits must return before the lost requests would have expired.
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    never(puller.next::<u64>(0)).await;
    // The broker redelivers the messages held across the restart once their ack wait is over.
    wait_for("no more than four handed out", SOON, async || {
        let out = handed_out(&broker).await;
        if out <= 4 { Ok(()) } else { Err(out) }
    })
    .await;
}

#[tokio::test]
async fn a_standby_gets_work_only_while_no_other_asks_for_it() {
    let broker = Broker::start().await;
    let mut standby = puller(&broker).await.standby(1);
    let mut preferred = puller(&broker).await;
    // The standby requests work first.
    never(standby.next::<u64>(4)).await;
    never(preferred.next::<u64>(2)).await;
    release(&broker, 0..2).await;
    let held = fill(&mut preferred, 2).await;
    assert_eq!(held.iter().map(|d| d.body).collect::<Vec<_>>(), [0, 1]);
    never(standby.next::<u64>(4)).await;
    release(&broker, 2..4).await;
    let held = fill(&mut standby, 2).await;
    assert_eq!(held.iter().map(|d| d.body).collect::<Vec<_>>(), [2, 3]);
}
