use crate::{Broker, connect, message, mock, soon};
use push0_bus::{BusError, Limits, Stream};
use push0_domain::subject;
use push0_harness::NatsServer;

#[tokio::test]
async fn provisioning_again_changes_nothing_and_loses_nothing() {
    let broker = Broker::start().await;
    let demo = "demo".parse().unwrap();
    broker
        .bus
        .publish(message(subject::block(&demo), &1u64))
        .await
        .unwrap();
    let state = async || {
        let jetstream = broker.jetstream().await;
        let mut configs = Vec::new();
        for stream in Stream::ALL {
            let info = jetstream
                .get_stream(stream.name())
                .await
                .unwrap()
                .get_info()
                .await
                .unwrap();
            configs.push((info.config.clone(), info.state.messages));
        }
        configs
    };
    let before = state().await;
    let limits = Limits {
        store_bytes: 1 << 30,
        ..Limits::default()
    };
    broker.bus.provision(&limits).await.unwrap();
    broker.bus.provision_zkvm(&mock()).await.unwrap();
    assert_eq!(state().await, before);
}

#[tokio::test]
async fn every_stream_bucket_and_consumer_says_what_it_is_for() {
    let broker = Broker::start().await;
    let jetstream = broker.jetstream().await;
    let consumers = [("PUSH0_TASKS", "prover-mock"), ("PUSH0_CHECKS", "verifier-mock")];
    for name in push0_bus::stream_names() {
        let stream = jetstream.get_stream(&name).await.unwrap();
        let description = stream.get_info().await.unwrap().config.description;
        assert!(description.is_some_and(|text| text.len() > 20), "{name}");
    }
    for (stream, consumer) in consumers {
        let stream = jetstream.get_stream(stream).await.unwrap();
        let description = stream.consumer_info(consumer).await.unwrap().config.description;
        assert!(
            description.is_some_and(|text| text.contains("zkVM mock")),
            "{consumer}"
        );
    }
}

#[tokio::test]
async fn provisioning_with_other_limits_changes_them_everywhere() {
    let broker = Broker::start().await;
    let limits = Limits {
        store_bytes: 2 << 30,
        ..Limits::default()
    };
    let maxima = async || {
        let jetstream = broker.jetstream().await;
        let mut maxima = Vec::new();
        for name in Stream::ALL
            .map(Stream::name)
            .into_iter()
            .chain(["KV_push0_state", "PUSH0_BLOBS"])
        {
            maxima.push((
                name,
                jetstream
                    .get_stream(name)
                    .await
                    .unwrap()
                    .cached_info()
                    .config
                    .max_bytes,
            ));
        }
        maxima
    };
    let before = maxima().await;
    broker.bus.provision(&limits).await.unwrap();
    for ((name, before), (_, after)) in before.into_iter().zip(maxima().await) {
        assert!(after > before, "{name} keeps {before} bytes: {after}");
    }
}

#[tokio::test]
async fn what_is_not_provisioned_is_named() {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    let error = soon(bus.check_provisioned()).await.unwrap_err();
    assert!(matches!(error, BusError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("push0 provision"), "{error}");
    bus.provision(&Limits {
        store_bytes: 1 << 30,
        ..Limits::default()
    })
    .await
    .unwrap();
    bus.check_provisioned().await.unwrap();
    let error = bus.puller(Stream::Tasks, "prover-other").await.err().unwrap();
    assert!(matches!(error, BusError::Missing { .. }), "{error}");
}
