use crate::soon;
use push0_bus::{Bucket, Bus, BusError, Limits, NatsConfig};
use push0_domain::subject::{self, Kind};
use push0_harness::{NatsOptions, NatsServer};
use std::sync::{Arc, Mutex};

/// Starts a broker whose user `narrow` may only request the state of streams.
async fn broker() -> NatsServer {
    NatsOptions::default()
        .with_config(
            "authorization { users: [\n\
             { user: all, password: secret }\n\
             { user: narrow, password: secret, permissions: { publish: [\"$JS.API.STREAM.INFO.*\"], subscribe: \"_INBOX.>\" } }\n\
             ] }",
        )
        .start()
        .await
}

fn config(server: &NatsServer, user: &str) -> NatsConfig {
    let url = server.url().replace("nats://", &format!("nats://{user}:secret@"));
    NatsConfig {
        url,
        ..NatsConfig::default()
    }
}

#[tokio::test]
async fn a_refusal_names_subject_and_user_at_once() {
    let server = broker().await;
    let all = Bus::connect(&config(&server, "all"), "all").await.unwrap();
    let limits = Limits {
        store_bytes: 1 << 30,
        ..Limits::default()
    };
    all.provision(&limits).await.unwrap();
    let reports: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
    let kept = reports.clone();
    let report = move |refusal: Option<&push0_bus::Refusal>| {
        kept.lock().unwrap().push(refusal.map(|r| r.subject.clone()));
    };
    let narrow = config(&server, "narrow");
    let narrow = Bus::connect_reporting(&narrow, "narrow", report, |_| {})
        .await
        .unwrap();
    narrow.connected().await;
    narrow.permitted(narrow.check_provisioned()).await.unwrap();
    let facts = narrow.facts::<u64>(Bucket::State).await.unwrap();
    let began = std::time::Instant::now();
    let error = soon(narrow.permitted(facts.put("cursor.a", &1)))
        .await
        .unwrap_err();
    let (took, said) = (began.elapsed(), error.to_string());
    let BusError::Forbidden(refusal) = error else {
        panic!("{said}");
    };
    assert_eq!(refusal.subject, "$KV.push0_state.cursor.a");
    assert_eq!(refusal.user, "the user `narrow`");
    assert!(said.contains("narrow") && !said.contains("secret"), "{said}");
    // Without the refusal, a dropped request would time out after two seconds.
    assert!(took < std::time::Duration::from_secs(1), "{took:?}");
    let reports = reports.lock().unwrap().clone();
    assert_eq!(reports, [None, Some("$KV.push0_state.cursor.a".to_owned())]);
}

#[tokio::test]
async fn a_refused_subscription_names_subject_and_user_at_once() {
    let server = broker().await;
    let narrow = Bus::connect(&config(&server, "narrow"), "narrow").await.unwrap();
    narrow.connected().await;
    let blocks = subject::all(Kind::Block);
    let began = std::time::Instant::now();
    let hears = async { narrow.listen([blocks.clone()]).await?.next().await.map(|_| ()) };
    let error = soon(narrow.permitted(hears)).await.unwrap_err();
    let (took, said) = (began.elapsed(), error.to_string());
    let BusError::Forbidden(refusal) = error else {
        panic!("{said}");
    };
    assert_eq!(refusal.subject, blocks);
    assert!(
        said.contains(&format!("let the user `narrow` subscribe to `{blocks}`")),
        "{said}"
    );
    // A subscription has no answer: without the refusal, it would wait for ever.
    assert!(took < std::time::Duration::from_secs(1), "{took:?}");
}
