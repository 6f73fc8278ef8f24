use crate::{Broker, never, soon};
use futures::StreamExt;
use push0_bus::{Bucket, Facts, PipelineChange, Pipelines, now};
use push0_domain::pipeline::Pipeline;

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
async fn changes_come_from_a_revision_on_without_a_consumer() {
    let broker = Broker::start().await;
    let facts = facts(&broker).await;
    facts.put("a.1", &1).await.unwrap();
    let known = facts.newest().await.unwrap();
    facts.put("a.2", &2).await.unwrap();
    facts.put("b.1", &9).await.unwrap();
    let mut changes = facts.changes("a.*", known).await.unwrap();
    let mut next = async || {
        let fact = soon(changes.next()).await.unwrap().unwrap();
        (fact.key, fact.value)
    };
    assert_eq!(next().await, ("a.2".into(), Some(2)));
    facts.put("a.1", &3).await.unwrap();
    facts.put("b.1", &9).await.unwrap();
    assert_eq!(next().await, ("a.1".into(), Some(3)));
    facts.delete("a.1").await.unwrap();
    assert_eq!(next().await, ("a.1".into(), None));
    never(changes.next()).await;
    let stream = broker.jetstream().await.get_stream("KV_push0_state").await;
    assert_eq!(stream.unwrap().cached_info().state.consumer_count, 0);
}

#[tokio::test]
async fn changes_go_on_after_an_unreadable_fact() {
    let broker = Broker::start().await;
    let texts = broker.bus.facts::<String>(Bucket::State).await.unwrap();
    let facts = facts(&broker).await;
    let mut changes = facts.changes("a.*", 0).await.unwrap();
    texts.put("a.1", &"text".to_owned()).await.unwrap();
    facts.put("a.2", &2).await.unwrap();
    let unreadable = soon(changes.next()).await.unwrap().unwrap_err();
    assert!(unreadable.to_string().contains("push0_state/a.1"), "{unreadable}");
    assert_eq!(soon(changes.next()).await.unwrap().unwrap().value, Some(2));
    never(changes.next()).await;
}

/// A pipeline that comes and goes before a service looks may have blocks in flight, which a collector must emit.
#[tokio::test]
async fn a_pipeline_that_is_removed_at_once_is_told_of() {
    let broker = Broker::start().await;
    let text = "name = \"brief\"\nsource = { kind = \"external\" }\n[[proof]]\ntype = \"t\"\nzkvm = \"mock\"\n\
                [[proof.stage]]\nname = \"s\"\nkind = \"map\"\ntimeout = \"1s\"\n";
    let pipeline = Pipeline::from_toml("brief.toml", text).unwrap();
    let pipelines = Pipelines::bind(&broker.bus).await.unwrap();
    let (current, mut changes) = pipelines.watch().await.unwrap();
    assert!(current.is_empty());
    pipelines.apply(pipeline.clone()).await.unwrap();
    pipelines.remove(&pipeline.name).await.unwrap();
    let mut next = async || soon(changes.next()).await.unwrap().unwrap();
    assert!(matches!(next().await, PipelineChange::Defined(name) if name == pipeline.name));
    assert!(matches!(next().await, PipelineChange::Removed(name) if name == pipeline.name));
}

#[tokio::test]
async fn a_value_of_another_type_is_an_error_and_no_panic() {
    let broker = Broker::start().await;
    let texts = broker.bus.facts::<String>(Bucket::State).await.unwrap();
    texts.put("a", &"text".to_owned()).await.unwrap();
    let error = facts(&broker).await.get("a").await.unwrap_err();
    assert!(error.to_string().contains("push0_state/a"), "{error}");
}
