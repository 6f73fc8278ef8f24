use crate::{Broker, never, soon};
use push0_bus::Leadership;
use std::time::{Duration, Instant};

async fn candidate(broker: &Broker) -> Leadership {
    Leadership::candidate(&broker.bus, "test")
        .await
        .expect("provisioned")
}

#[tokio::test]
async fn one_of_two_candidates_leads_for_as_long_as_it_renews() {
    let broker = Broker::start().await;
    let (first, second) = (candidate(&broker).await, candidate(&broker).await);
    let mut term = soon(first.win()).await.unwrap();
    let standby = async { second.win().await.map(|_| ()) };
    // Two seconds are three terms: a standby that misjudged them would have won.
    let both = async { tokio::join!(term.hold(), standby) };
    assert!(tokio::time::timeout(Duration::from_secs(2), both).await.is_err());
}

#[tokio::test]
async fn a_leader_that_looks_at_other_things_in_between_keeps_its_term() {
    let broker = Broker::start().await;
    let (first, second) = (candidate(&broker).await, candidate(&broker).await);
    let mut term = soon(first.win()).await.unwrap();
    let mut events = tokio::time::interval(Duration::from_micros(300));
    let leading = async {
        loop {
            tokio::select! {
                () = term.hold() => return "lost its term",
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
        let (first, second) = (candidate(&broker).await, candidate(&broker).await);
        let won = tokio::select! {
            won = first.win() => won.unwrap(),
            won = second.win() => won.unwrap(),
        };
        never(async { candidate(&broker).await.win().await.is_ok() }).await;
        won.resign().await;
    }
}

#[tokio::test]
async fn a_standby_takes_over_within_a_second_when_the_leader_falls_silent() {
    let broker = Broker::start().await;
    let (first, second) = (candidate(&broker).await, candidate(&broker).await);
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
    let (first, second) = (candidate(&broker).await, candidate(&broker).await);
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
    let dying = Leadership::candidate(&other, "test").await.unwrap();
    let mut term = soon(dying.win()).await.unwrap();
    // Renewed a moment ago: by the fact alone it leads for 600 ms more.
    let _ = tokio::time::timeout(Duration::from_millis(200), term.hold()).await;
    let silent_since = Instant::now();
    drop((term, dying, other));
    soon(candidate(&broker).await.win()).await.unwrap();
    let gap = silent_since.elapsed();
    println!("taken over {gap:?} after the leader's connection ended");
    assert!(gap < Duration::from_millis(400), "{gap:?}");
}

#[tokio::test]
async fn a_deposed_leader_learns_it_and_takes_nothing_away() {
    let broker = Broker::start().await;
    let (first, second) = (candidate(&broker).await, candidate(&broker).await);
    let mut frozen = soon(first.win()).await.unwrap();
    let mut successor = soon(second.win()).await.unwrap();
    tokio::select! {
        () = frozen.hold() => {}
        () = successor.hold() => panic!("the successor lost to a frozen leader"),
    }
    frozen.resign().await;
    // Resigning a role that was lost must not end the successor's term.
    never(successor.hold()).await;
}
