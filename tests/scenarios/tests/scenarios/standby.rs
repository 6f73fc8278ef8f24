//! Standby provers, which work only while the other provers are busy.

use push0_harness::{Deployment, assert_complete_in_order};
use push0_scenarios::{PATIENCE, demo, deploy, proofs, prover, single, verifier};

#[tokio::test]
async fn a_standby_proves_only_what_the_others_have_no_slot_for() {
    let slow = |name: &str| prover(name).env("PUSH0_MOCK__TIME", "300ms");
    let standby = slow("rented").env("PUSH0_PROVER__STANDBY", 1);
    let stage = single("timeout = \"20s\"");
    let deployment = deploy(&stage, [standby, slow("own"), verifier("v1")]).await;
    let by = async |deployment: &Deployment, count: usize| -> Vec<String> {
        let emissions = deployment.wait_emitted(&demo(), count, PATIENCE).await;
        let provers = emissions
            .iter()
            .map(|record| proofs(record)[0].prover.to_string());
        provers.collect()
    };
    for block in 1..=4 {
        deployment.submit_blocks(&demo(), block..=block).await;
        by(&deployment, usize::try_from(block).expect("small")).await;
    }
    assert_eq!(by(&deployment, 4).await, ["own"; 4]);

    deployment.submit_blocks(&demo(), 5..=6).await;
    let mut both = by(&deployment, 6).await.split_off(4);
    both.sort();
    assert_eq!(both, ["own", "rented"]);

    deployment.service("own").terminate();
    deployment.service("own").wait_exit(PATIENCE).await;
    deployment.submit_blocks(&demo(), 7..=8).await;
    assert_eq!(by(&deployment, 8).await.split_off(6), ["rented"; 2]);
    assert_complete_in_order(&deployment.emissions(&demo()).await, 1..=8);
}
