use crate::{Broker, never, soon};
use futures::StreamExt;
use push0_bus::{Bucket, Facts, now};

async fn facts(broker: &Broker) -> Facts<u64> {
    broker.bus.facts(Bucket::State).await.expect("provisioned")
}

#[tokio::test]
async fn a_fact_is_swapped_by_whoever_saw_it_last() {
    let broker = Broker::start().await;
    let facts = facts(&broker).await;
    assert_eq!(facts.get("cursor.a").await.unwrap(), None);
    let first = facts.swap("cursor.a", &1, 0).await.unwrap().unwrap();
    assert_eq!(
        facts.swap("cursor.a", &9, 0).await.unwrap(),
        None,
        "it is there already"
    );
    let second = facts.swap("cursor.a", &2, first).await.unwrap().unwrap();
    assert_eq!(
        facts.swap("cursor.a", &9, first).await.unwrap(),
        None,
        "another writer was faster"
    );
    let fact = facts.get("cursor.a").await.unwrap().unwrap();
    assert_eq!((fact.value, fact.revision), (Some(2), second));
}

#[tokio::test]
async fn a_fact_says_when_it_was_stored() {
    let broker = Broker::start().await;
    let facts = facts(&broker).await;
    let before = now();
    facts.put("cursor.a", &1).await.unwrap();
    let between = now();
    facts.put("cursor.a", &2).await.unwrap();
    let fact = facts.get("cursor.a").await.unwrap().unwrap();
    assert!(before <= between && between <= fact.stored_at && fact.stored_at <= now());
}

#[tokio::test]
async fn a_deleted_fact_has_no_value_and_can_be_set_again() {
    let broker = Broker::start().await;
    let facts = facts(&broker).await;
    facts.delete("cursor.none").await.unwrap();
    facts.put("cursor.a", &1).await.unwrap();
    facts.delete("cursor.a").await.unwrap();
    let gone = facts.get("cursor.a").await.unwrap().unwrap();
    assert_eq!(gone.value, None);
    assert!(facts.swap("cursor.a", &2, gone.revision).await.unwrap().is_some());
    assert_eq!(facts.get("cursor.a").await.unwrap().unwrap().value, Some(2));
    // Revision 0 means that the key was never set. To set a deleted key, swap the deletion's revision.
    facts.delete("cursor.a").await.unwrap();
    assert_eq!(facts.swap("cursor.a", &3, 0).await.unwrap(), None);
}

#[tokio::test]
async fn a_list_has_what_matches_and_is_there() {
    let broker = Broker::start().await;
    let facts = facts(&broker).await;
    assert!(
        soon(facts.list(">")).await.unwrap().is_empty(),
        "an empty bucket answers as well"
    );
    for (key, value) in [("a.2", 2), ("a.1", 1), ("b.1", 3), ("a.1.x", 4), ("a.3", 5)] {
        facts.put(key, &value).await.unwrap();
    }
    facts.delete("a.3").await.unwrap();
    let found = async |filter: &str| {
        let found = soon(facts.list(filter)).await.unwrap();
        found
            .into_iter()
            .filter_map(|f| Some((f.key, f.value?)))
            .collect::<Vec<_>>()
    };
    assert_eq!(found("a.*").await, [("a.1".to_owned(), 1), ("a.2".to_owned(), 2)]);
    assert_eq!(found(">").await.len(), 4);
    for key in ["a.2", "a.1", "b.1", "a.1.x"] {
        facts.delete(key).await.unwrap();
    }
    assert!(
        found(">").await.is_empty(),
        "a bucket of deleted facts answers as well"
    );
}

#[tokio::test]
async fn a_watcher_sees_what_is_there_and_every_change() {
    let broker = Broker::start().await;
    let facts = facts(&broker).await;
    facts.put("a.1", &1).await.unwrap();
    facts.put("b.1", &9).await.unwrap();
    let mut watch = facts.watch("a.*").await.unwrap();
    let mut next = async || {
        let fact = soon(watch.next()).await.unwrap().unwrap();
        (fact.key, fact.value)
    };
    assert_eq!(next().await, ("a.1".into(), Some(1)));
    facts.put("a.1", &2).await.unwrap();
    facts.put("b.1", &9).await.unwrap();
    assert_eq!(next().await, ("a.1".into(), Some(2)));
    facts.delete("a.1").await.unwrap();
    assert_eq!(next().await, ("a.1".into(), None));
    never(watch.next()).await;
}

#[tokio::test]
async fn a_value_of_another_type_is_an_error_and_no_panic() {
    let broker = Broker::start().await;
    let texts = broker.bus.facts::<String>(Bucket::State).await.unwrap();
    texts.put("a", &"text".to_owned()).await.unwrap();
    let error = facts(&broker).await.get("a").await.unwrap_err();
    assert!(error.to_string().contains("push0_state/a"), "{error}");
}
