//! `examples/adapter-rust`: the adapter proves and verifies.

use crate::{PATIENCE, demo, pipeline, services, stamp, verifier};
use push0_domain::message::EmissionOutcome;
use push0_harness::assert_complete_in_order;

#[tokio::test]
async fn the_adapter_in_rust_proves_and_verifies() {
    let deployment = services(&pipeline("external", "timeout = \"10s\""))
        .service(stamp("p1").env("PUSH0_PROVER__SLOTS", 2))
        .service(verifier())
        .start()
        .await;
    deployment.submit_blocks(&demo(), 1..=8).await;
    let emissions = deployment.wait_emitted(&demo(), 8, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=8);
    for kept in &emissions {
        let record = kept.body.as_ref().expect("a readable record");
        let EmissionOutcome::Proved(proofs) = &record.outcome else {
            unreachable!("{record:?}")
        };
        let verifier = proofs[0].verifier.as_ref().expect("the proof was verified");
        assert_eq!(verifier.as_str(), "v1");
    }
}
