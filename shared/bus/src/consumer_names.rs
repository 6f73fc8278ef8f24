//! The names under which provers and verifiers share the work of a zkVM.

use push0_domain::ZkvmId;

/// The only priority group of each consumer. The broker ranks requests within a group only.
pub(crate) const GROUP: &str = "work";

/// Returns the name of the durable consumer from which the provers of a zkVM take tasks.
pub fn consumer_of_tasks(zkvm: &ZkvmId) -> String {
    format!("prover-{zkvm}")
}

/// Returns the name of the durable consumer from which the verifiers of a zkVM take checks.
pub fn consumer_of_checks(zkvm: &ZkvmId) -> String {
    format!("verifier-{zkvm}")
}
