//! The `main` function of an adapter.

use crate::{
    Common, Prove, Verify,
    adopted::Adopted,
    cli::{self, Cli},
    command,
    heartbeat::Heartbeat,
    identity::Identity,
    judged::Judged,
    ledger::Ledger,
    membership::{self, NoCredential},
    metrics::Metrics,
    node::{Node, StatementFacts},
    offer,
    presence::{self, NameTaken},
    serve::{self, Job, Proving, Verifying},
    signer::Signer,
    spool::Spool,
};
use push0_bus::{Backoff, Bus, BusError};
use push0_domain::{ProverId, ZkvmId, message::Role};
use push0_runtime::{BoxError, HasRuntimeConfig, Service, check_start, exit, run_with};
use serde::de::DeserializeOwned;
use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Runs an adapter as the whole of its process and returns the process's exit code.
///
/// The command line is `<name> [--verify] [--config FILE]`, or one of the commands that need no broker,
/// `verify-file` and `program-id`. `name` is the program's name, for example `prover-sp1`. `zkvm` is the
/// name of the adapter's zkVM; `[prover] zkvm` overrides it.
///
/// `make` builds the adapter from its configuration, for proving or for verifying; the two commands build
/// it for verifying. An error from `make` is reported as a mistake in the configuration (exit code 64), and so is
/// a name (`[prover] id`) that a living process has. `C`
/// is the adapter's configuration type: [`crate::AdapterConfig`], or a type with more sections and a
/// conversion to [`Common`].
pub fn main<A, C>(
    name: &'static str,
    version: &'static str,
    zkvm: &'static str,
    make: impl FnOnce(&C, Role) -> Result<A, BoxError>,
) -> ExitCode
where
    A: Prove + Verify,
    C: DeserializeOwned + HasRuntimeConfig,
    for<'a> Common: From<&'a C>,
{
    let Cli { run, verify, command } = match cli::parse(name, version, std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if let Some(command) = command {
        return command::run(name, &run, command, make);
    }
    let role = if verify { Role::Verifier } else { Role::Prover };
    if run.check_start {
        return check_start::<C>(&run, |config| make(config, role).map(drop));
    }
    let refused = AtomicBool::new(false);
    let code = run_with(name, version, &run, |service: Service<C>| async {
        let adapter = make(&service.config, role).inspect_err(|_| refused.store(true, Ordering::Relaxed))?;
        let (adapter, common) = (Arc::new(adapter), Common::from(&service.config));
        let ended = match role {
            Role::Verifier => start(service, common, zkvm, Verifying(adapter)).await,
            Role::Prover => start(service, common, zkvm, Proving(adapter)).await,
        };
        // A second process of a name is a mistake in its configuration, and so is a credential that is none.
        let is_mistake = |error: &BoxError| error.is::<NameTaken>() || error.is::<NoCredential>();
        ended.inspect_err(|error| refused.store(is_mistake(error), Ordering::Relaxed))
    });
    if refused.load(Ordering::Relaxed) {
        return ExitCode::from(exit::CONFIG);
    }
    code
}

async fn start<C, J: Job>(service: Service<C>, common: Common, zkvm: &str, job: J) -> Result<(), BoxError> {
    let Common {
        mut nats,
        prover: config,
    } = common;
    let zkvm = ZkvmId::new(if config.zkvm.is_empty() {
        zkvm
    } else {
        &config.zkvm
    })?;
    let (id, signer) = membership::join(&mut nats, &config, &zkvm, J::ROLE)?;
    let (broker, consumer) = (
        service.health.component("broker"),
        service.health.component("consumer"),
    );
    tracing::info!(prover.id = %id, %zkvm, slots = config.slots, role = ?J::ROLE, "adapter starts");

    let permissions = service.health.component("permissions").reporter();
    let connection = service.health.component("connection").quiet_reporter();
    let bus = Bus::connect_reporting(&nats, id.as_str(), permissions, connection).await?;
    let node = tokio::select! {
        node = bind(bus, (&id, &zkvm), signer, J::ROLE, &config) => Arc::new(node?),
        () = service.shutdown.requested() => return Ok(()),
    };
    broker.ready();
    let identity = Identity {
        prover: id,
        zkvm,
        role: J::ROLE,
        slots: config.slots,
        incarnation: rand::random(),
        origin: presence::origin(),
    };
    let (heartbeat, named) = Heartbeat::start(nats, identity, node.ledger.clone(), &service.health)?;
    tokio::select! {
        // Without an answer the thread has ended, and has logged the reason.
        named = named => named.unwrap_or(Ok(()))?,
        () = service.shutdown.requested() => return Ok(()),
    }
    let serving = serve::serve(node.clone(), job, consumer, service.shutdown, config.grace);
    match J::ROLE {
        Role::Verifier => serving.await,
        Role::Prover => {
            // Taken over first: an attempt whose result is here must not be proved again.
            let taken = offer::adopt(&node).await;
            tokio::select! {
                () = serving => {}
                never = offer::offer_adopted(&node, taken) => match never {},
            }
        }
    }
    // Joins the heartbeat thread, which waits for the network only for a moment.
    tokio::task::spawn_blocking(move || drop(heartbeat)).await?;
    Ok(())
}

/// Binds to the provisioned streams, buckets and pipelines, waiting until they exist.
async fn bind(
    bus: Bus,
    (id, zkvm): (&ProverId, &ZkvmId),
    signer: Option<Signer>,
    role: Role,
    config: &crate::ProverConfig,
) -> Result<Node, BoxError> {
    let metrics = Metrics::register()?;
    let spool = Spool::new(config).map_err(|e| format!("prover.spool: {}: {e}", config.spool.display()))?;
    let mut backoff = Backoff::default();
    let mut said = false;
    loop {
        bus.connected().await;
        match bus.permitted(parts(&bus, role)).await {
            Ok((blobs, facts)) => {
                return Ok(Node {
                    blobs,
                    facts,
                    ledger: Arc::new(Ledger::new(config.clone())),
                    slots: Semaphore::new(config.slots as usize),
                    draining: CancellationToken::new(),
                    leaving: CancellationToken::new(),
                    signer,
                    id: id.clone(),
                    zkvm: zkvm.clone(),
                    standby: config.standby,
                    verify_own: config.verify_own,
                    stall: config.stall,
                    spool,
                    adopted: Adopted::default(),
                    judged: Judged::default(),
                    metrics,
                    bus,
                });
            }
            Err(error) if !said => tracing::warn!(%error, "waiting for the broker's streams"),
            Err(_) => {}
        }
        said = true;
        backoff.pause().await;
    }
}

/// Binds to the stores. Only verifiers may read facts and definitions.
async fn parts(bus: &Bus, role: Role) -> Result<(push0_bus::Blobs, Option<StatementFacts>), BusError> {
    let facts = match role {
        Role::Prover => None,
        Role::Verifier => Some(StatementFacts {
            known: bus.facts(push0_bus::Bucket::Blocks).await?,
            pipelines: push0_bus::Pipelines::bind(bus).await?,
        }),
    };
    Ok((bus.blobs(), facts))
}
