use crate::{A_WHILE, Broker, SOON, soon};
use push0_harness::wait_for;

/// The watchdog's word for "its connection has ended". A listener that does not answer counts as connected.
#[tokio::test]
async fn a_subject_has_no_listener_before_a_process_connects_and_after_its_connection_ends() {
    let broker = Broker::start().await;
    let subject = || "a.subject.of.one.process".to_owned();
    assert!(soon(broker.bus.has_no_listener(subject(), SOON)).await);
    let other = broker.another().await;
    let silent = other.listen([subject()]).await.expect("listening");
    other.flush().await;
    wait_for("a listener", SOON, async || {
        (!broker.bus.has_no_listener(subject(), A_WHILE).await).then_some(())
    })
    .await;
    drop((silent, other));
    wait_for("nobody", SOON, async || {
        broker.bus.has_no_listener(subject(), A_WHILE).await.then_some(())
    })
    .await;
}
