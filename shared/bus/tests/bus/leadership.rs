use crate::{Broker, never, soon};
use push0_bus::{Leadership, Loss};
use std::time::{Duration, Instant};

fn candidate(broker: &Broker) -> Leadership {
    Leadership::candidate(&broker.bus, "test")
}

#[tokio::test]
async fn one_of_two_candidates_leads_for_as_long_as_it_renews() {
    let broker = Broker::start().await;
    let (first, second) = (candidate(&broker), candidate(&broker));
    let mut term = soon(first.win()).await.unwrap();
    let began = broker.bus.lead("test").await.unwrap();
    let standby = async { second.win().await.map(|_| ()) };
    // Two seconds are three terms: a standby that misjudged the term would have won.
    let both = async { tokio::join!(term.hold(), standby) };
    assert!(tokio::time::timeout(Duration::from_secs(2), both).await.is_err());
    let renewed = broker.bus.lead("test").await.unwrap();
    assert!(renewed.renewed_at > began.renewed_at, "{began:?} {renewed:?}");
    assert!(
        began.began_at.is_some() && renewed.began_at == began.began_at,
        "{began:?} {renewed:?}"
    );
}

#[tokio::test]
async fn a_leader_that_looks_at_other_things_in_between_keeps_its_term() {
    let broker = Broker::start().await;
    let (first, second) = (candidate(&broker), candidate(&broker));
    let mut term = soon(first.win()).await.unwrap();
    let mut events = tokio::time::interval(Duration::from_micros(300));
    let leading = async {
        loop {
            tokio::select! {
                _ = term.hold() => return "lost its term",
                _ = events.tick() => {}
            }
        }
    };
    let outcome = tokio::select! {
        lost = leading => lost,
        _ = second.win() => "was replaced",
        () = tokio::time::sleep(Duration::from_secs(2)) => "leads", // wait: three terms must pass
    };
    assert_eq!(outcome, "leads");
}

#[tokio::test]
async fn of_two_that_start_together_exactly_one_wins() {
    let broker = Broker::start().await;
    for _ in 0..5 {
        let (first, second) = (candidate(&broker), candidate(&broker));
        let won = tokio::select! {
            won = first.win() => won.unwrap(),
            won = second.win() => won.unwrap(),
        };
        never(async { candidate(&broker).win().await.is_ok() }).await;
        won.resign().await;
    }
}

#[tokio::test]
async fn a_standby_takes_over_within_a_second_when_the_leader_falls_silent() {
    let broker = Broker::start().await;
    let (first, second) = (candidate(&broker), candidate(&broker));
    let mut term = soon(first.win()).await.unwrap();
    let (silent_since, won_at) = tokio::join!(
        async {
            let _ = tokio::time::timeout(Duration::from_millis(500), term.hold()).await;
            drop(term);
            Instant::now()
        },
        async {
            let _ = soon(second.win()).await.unwrap();
            Instant::now()
        }
    );
    let gap = won_at.duration_since(silent_since);
    println!("taken over {gap:?} after the leader fell silent");
    assert!(gap < Duration::from_secs(1), "{gap:?}");
}

#[tokio::test]
async fn a_standby_takes_over_at_once_when_the_leader_resigns() {
    let broker = Broker::start().await;
    let (first, second) = (candidate(&broker), candidate(&broker));
    let term = soon(first.win()).await.unwrap();
    let (resigned_at, won_at) = tokio::join!(
        async {
            term.resign().await;
            Instant::now()
        },
        async {
            let _ = soon(second.win()).await.unwrap();
            Instant::now()
        }
    );
    let gap = won_at.saturating_duration_since(resigned_at);
    println!("taken over {gap:?} after the leader resigned");
    assert!(gap < Duration::from_millis(400), "{gap:?}");
}

#[tokio::test]
async fn a_candidate_takes_over_at_once_when_the_leaders_connection_has_ended() {
    let broker = Broker::start().await;
    let other = broker.another().await;
    let dying = Leadership::candidate(&other, "test");
    let mut term = soon(dying.win()).await.unwrap();
    // The term was renewed a moment ago, so by the fact alone the leader leads for 600 ms more.
    let _ = tokio::time::timeout(Duration::from_millis(200), term.hold()).await;
    let silent_since = Instant::now();
    drop((term, dying, other));
    soon(candidate(&broker).win()).await.unwrap();
    let gap = silent_since.elapsed();
    println!("taken over {gap:?} after the leader's connection ended");
    assert!(gap < Duration::from_millis(400), "{gap:?}");
}

#[tokio::test]
async fn a_deposed_leader_learns_it_and_takes_nothing_away() {
    let broker = Broker::start().await;
    let (first, second) = (candidate(&broker), candidate(&broker));
    let mut frozen = soon(first.win()).await.unwrap();
    let mut successor = soon(second.win()).await.unwrap();
    tokio::select! {
        loss = frozen.hold() => assert_eq!(loss, Loss::Taken),
        _ = successor.hold() => panic!("the successor lost to a frozen leader"),
    }
    frozen.resign().await;
    // Resigning a lost role must not end the successor's term.
    never(successor.hold()).await;
}

#[tokio::test]
async fn a_broker_that_stores_no_renewal_is_no_other_leader() {
    let mut broker = Broker::start().await;
    let losses = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = losses.clone();
    let count = move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let mut term = soon(candidate(&broker).watched(count, |_| ()).win())
        .await
        .unwrap();
    broker.server.kill();
    let loss = tokio::time::timeout(Duration::from_secs(20), term.hold())
        .await
        .unwrap();
    let error = loss.of_broker("test").unwrap_err().to_string();
    assert!(error.starts_with("the lead as test: "), "{error}");
    assert_eq!(losses.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_candidate_is_served_once_a_leader_renews_its_term() {
    let broker = Broker::start().await;
    let served = std::sync::atomic::AtomicBool::new(false);
    let (leader, standby) = (candidate(&broker), candidate(&broker));
    let mut term = soon(leader.win()).await.unwrap();
    let stands_by = standby.win_reporting(|| served.store(true, std::sync::atomic::Ordering::Relaxed));
    tokio::select! {
        _ = stands_by => panic!("the leader lost its term"),
        _ = tokio::time::timeout(Duration::from_secs(1), term.hold()) => {}
    }
    assert!(served.into_inner(), "the standby saw no renewal");
}

#[tokio::test]
async fn a_role_that_is_taken_again_and_again_is_asked_for_more_slowly() {
    let broker = Broker::start().await;
    let losses = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (counted, reported) = (losses.clone(), std::sync::Arc::new(std::sync::Mutex::new(None)));
    let says = reported.clone();
    let slow = candidate(&broker).watched(
        move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        },
        move |contest| *says.lock().unwrap() = contest.map(ToString::to_string),
    );
    let other = candidate(&broker);
    for _ in 0..3 {
        assert_eq!(*reported.lock().unwrap(), None);
        let mut lost = soon(slow.win()).await.unwrap();
        // The term expires while it is not renewed, so another candidate takes the role.
        let term = soon(other.win()).await.unwrap();
        soon(lost.hold()).await;
        term.resign().await;
    }
    assert_eq!(losses.load(std::sync::atomic::Ordering::Relaxed), 3);
    let said = reported.lock().unwrap().clone().expect("a report");
    assert!(said.contains("`test`"), "{said}");
    let asked = Instant::now();
    soon(slow.win()).await.unwrap();
    assert!(asked.elapsed() >= Duration::from_secs(1), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn the_questions_of_standbys_do_not_pile_up_at_the_leader() {
    let broker = Broker::start().await;
    let mut term = soon(candidate(&broker).win()).await.unwrap();
    let asks = broker.jetstream().await;
    let leading = async {
        tokio::time::timeout(Duration::from_secs(1), term.hold())
            .await
            .unwrap_err();
    };
    let asking = async {
        for _ in 0..1000 {
            asks.client()
                .publish(push0_domain::subject::leader("test"), "".into())
                .await
                .unwrap();
        }
        asks.client().flush().await.unwrap();
    };
    tokio::join!(leading, asking);
    assert_eq!(term.unread(), 0);
}
