use crate::{Broker, SOON, soon};
use push0_bus::Leadership;
use serde_json::Value;
use std::time::Duration;

const A_SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn services_tell_who_they_are_and_which_roles_they_lead() {
    let broker = Broker::start().await;
    let (first, second) = (broker.another().await, broker.another().await);
    let healthy = first.introduce("dispatcher", "1.2.3", || None);
    let _ill = second.introduce("dispatcher", "1.2.3", || Some("broker: away".into()));
    let (leader, standby) = (
        Leadership::candidate(&first, "dispatcher"),
        Leadership::candidate(&second, "dispatcher"),
    );
    let term = soon(leader.win()).await.expect("it leads");
    first.flush().await;
    second.flush().await;
    let found = broker.bus.services(SOON).await.expect("answers");
    let roles: Vec<_> = found
        .iter()
        .map(|s| (s.leading.clone(), s.standby.clone(), s.not_ready.clone()))
        .collect();
    let role = || vec!["dispatcher".to_owned()];
    assert_eq!(found.len(), 2);
    assert!(roles.contains(&(role(), vec![], None)), "{roles:?}");
    assert!(
        roles.contains(&(vec![], role(), Some("broker: away".into()))),
        "{roles:?}"
    );
    for service in &found {
        assert_eq!(
            (service.name.as_str(), service.version.as_str()),
            ("dispatcher", "1.2.3")
        );
        assert!(
            service.replica.ends_with(&format!("/{}", std::process::id())),
            "{service:?}"
        );
        assert!(service.memory_bytes > Some(100_000), "{service:?}");
    }

    let lead = broker.bus.lead("dispatcher").await.expect("an answer");
    assert!(lead.led.is_some() && lead.renewed_at.is_some(), "{lead:?}");
    term.resign().await;
    drop((healthy, standby));
    let lead = broker.bus.lead("dispatcher").await.expect("an answer");
    assert!(lead.led.is_none() && lead.renewed_at.is_some(), "{lead:?}");
    let left = broker.bus.services(A_SECOND).await.expect("answers");
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn a_client_of_the_convention_gets_its_answers_and_nothing_else_is_written_to() {
    let broker = Broker::start().await;
    let service = broker.another().await;
    let _known = service.introduce("collector", "1.2.3", || None);
    service.flush().await;
    let client = async_nats::connect(broker.server.url()).await.expect("connected");
    let ask = async |subject: String| -> Value {
        let answer = soon(client.request(subject, "".into())).await.expect("an answer");
        serde_json::from_slice(&answer.payload).expect("JSON")
    };
    let ping = ask("$SRV.PING".to_owned()).await;
    assert_eq!(ping["type"], "io.nats.micro.v1.ping_response");
    let id = ping["id"].as_str().expect("an id");
    let info = ask("$SRV.INFO.push0-collector".to_owned()).await;
    assert!(
        info["description"]
            .as_str()
            .is_some_and(|text| text.contains("records"))
    );
    let stats = ask(format!("$SRV.STATS.push0-collector.{id}")).await;
    assert!(
        stats["started"].as_str().is_some_and(|at| at.ends_with('Z')),
        "{stats}"
    );

    // A request whose answer would be a block is not answered.
    let before = broker
        .bus
        .newest(push0_bus::Stream::Blocks)
        .await
        .expect("an answer");
    let block = push0_domain::subject::block(&"demo".parse().expect("a name"));
    client
        .publish_with_reply("$SRV.PING", block, "".into())
        .await
        .expect("sent");
    ask("$SRV.PING".to_owned()).await;
    let after = broker
        .bus
        .newest(push0_bus::Stream::Blocks)
        .await
        .expect("an answer");
    assert_eq!(before, after);
}

#[tokio::test]
async fn without_services_the_question_ends_at_once() {
    let broker = Broker::start().await;
    let asked = tokio::time::timeout(A_SECOND, broker.bus.services(10 * SOON)).await;
    assert_eq!(asked.expect("at once").expect("an answer"), []);
}
