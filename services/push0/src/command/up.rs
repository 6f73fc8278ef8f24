//! `push0 up`: runs a broker and all services on this machine.
//!
//! All processes end with `push0 up`, even if `push0 up` is killed. The stored data stays in DIR, and the
//! next run continues from there.

use crate::context::Context;
use crate::endpoint::{DirLock, Endpoint, ServiceEntry};
use crate::failure::Failure;
use crate::overrides::Override;
use crate::progress::Progress;
use crate::secrets::without_userinfo;
use crate::up::log::Prefix;
use crate::up::plan::{self, Process};
use crate::up::provers::{Provers, ProversArg};
use crate::up::supervise::{Refused, Supervised};
use crate::up::{binaries, broker, broker_watch, check, disk, page, ports, submit};
use crate::{output, pipeline_file, probe, table};
use clap::Args;
use push0_bus::{Bus, Limits, NatsConfig, Pipelines};
use push0_domain::pipeline::Pipeline;
use push0_runtime::{Shutdown, TaskError, TaskGroup, exit};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

/// Time limit for the start of the broker, which reads its whole store.
const BROKER_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Interval of the messages about services that are not ready yet.
const SAY_EVERY: Duration = Duration::from_secs(10);

#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    /// A pipeline file. May be given several times.
    #[arg(long = "pipeline", required = true, value_name = "FILE")]
    pipelines: Vec<PathBuf>,
    /// Replace a value in the pipeline files, such as source.rpc_url=http://localhost:8545.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<Override>,
    /// Number of prover processes for a zkVM, or a file with prover settings per zkVM [default:
    /// provers.toml beside DIR, if present].
    #[arg(long, value_name = "ZKVM=COUNT|FILE")]
    provers: Vec<ProversArg>,
}

/// Everything needed for one run of `push0 up`.
struct Deployment {
    dir: PathBuf,
    pipelines: Vec<Pipeline>,
    processes: Vec<Process>,
    endpoint: Endpoint,
    nats: Process,
}

/// Variables that single services get.
const HANDED_ON: [&str; 3] = [page::VARIABLE, submit::VARIABLE, submit::TOKEN_VARIABLE];
/// Directory with the logs of attempts, in the state directory.
pub(crate) const ATTEMPTS: &str = "attempts";

pub(crate) async fn run(context: Context, args: UpArgs) -> Result<(), Failure> {
    let pipelines = load(&args)?;
    let provers = Provers::load(&args.provers, &context.dir)?;
    tell_unwanted(&provers, &pipelines);
    let processes = plan::processes(&pipelines, &provers, binaries::find)?;
    let nats_server = broker::find()?;
    if context.names_a_broker() {
        output::note("push0: `up` starts a broker of its own: --nats and PUSH0_NATS__URL are not used");
    }
    for variable in handed_to_none(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())) {
        output::note(&format!(
            "push0: `up` hands {variable} to no service; settings of provers belong in `env` in provers.toml"
        ));
    }
    std::fs::create_dir_all(&context.dir)
        .map_err(|error| Failure::failed(format!("{} cannot be made: {error}", context.dir.display())))?;
    // The broker's configuration needs an absolute path.
    let dir = context.dir.canonicalize()?;
    let _lock = DirLock::take(&dir)?;
    let signals = Signals::register()?;
    let deployment = prepare(dir, pipelines, processes, nats_server).await?;
    supervise(deployment, signals).await
}

fn load(args: &UpArgs) -> Result<Vec<Pipeline>, Failure> {
    let mut pipelines: Vec<Pipeline> = Vec::new();
    for file in &args.pipelines {
        let pipeline = pipeline_file::load(file, &args.overrides)?;
        if pipelines.iter().any(|other| other.name == pipeline.name) {
            let reason = format!(
                "{}: another file defines pipeline `{}` too",
                file.display(),
                pipeline.name
            );
            return Err(Failure::usage(reason));
        }
        pipelines.push(pipeline);
    }
    Ok(pipelines)
}

/// Returns the settings among `names` that the services do not get: they would otherwise have no effect unseen.
fn handed_to_none(names: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    // Those of the broker are for `push0` itself.
    let used = ["PUSH0_TELEMETRY__", "PUSH0_NATS__"];
    let is_unused = move |name: &String| {
        let is_setting = name == "PUSH0_CONFIG" || (name.starts_with("PUSH0_") && name.contains("__"));
        is_setting
            && !used.iter().any(|section| name.starts_with(section))
            && !HANDED_ON.contains(&name.as_str())
    };
    names.filter(is_unused)
}

/// Names zkVMs with settings that no pipeline asks for: a typing error would otherwise go unseen.
fn tell_unwanted(provers: &Provers, pipelines: &[Pipeline]) {
    let wanted: BTreeSet<_> = pipelines.iter().flat_map(Pipeline::zkvms).collect();
    let names: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    for zkvm in provers.unwanted(&wanted) {
        output::note(&format!(
            "push0: no pipeline asks for zkVM {zkvm}, so no prover is started for it (asked for: {})",
            names.join(", ")
        ));
    }
}

async fn prepare(
    dir: PathBuf,
    pipelines: Vec<Pipeline>,
    mut processes: Vec<Process>,
    nats_server: PathBuf,
) -> Result<Deployment, Failure> {
    let last = Endpoint::of_last_run(&dir);
    // The size chosen by the first run is kept: the broker does not shrink a store.
    let store_bytes = last
        .as_ref()
        .map_or_else(|| disk::store_bytes(&dir), |last| Ok(last.store_bytes))?;
    let nats_port = ports::again(last.as_ref().map(|last| last.nats_port)).await?;
    let secret = last
        .as_ref()
        .map(|last| last.secret.clone())
        .filter(|secret| !secret.is_empty());
    let secret = secret.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    let page = page::address(last.as_ref().and_then(|last| last.page))?;
    page::listen(&mut processes, page);
    let submit = submit::address(&pipelines, last.and_then(|last| last.submit))?;
    if let Some(address) = submit {
        submit::listen(&mut processes, address);
    }
    let nats_url = format!("nats://{}:{secret}@127.0.0.1:{nats_port}", broker::USER);
    let mut services = Vec::new();
    let addresses = ports::free(processes.len())?;
    let spool = std::path::absolute(dir.join("spool"))?;
    for (process, address) in processes.iter_mut().zip(addresses) {
        process.env.insert("PUSH0_NATS__URL".into(), nats_url.clone());
        process
            .env
            .insert("PUSH0_HTTP__LISTEN".into(), address.to_string());
        if process.zkvm.is_some() {
            // One for all: each takes over the results of those that ended.
            let spool = spool.to_string_lossy().into_owned();
            process.env.entry("PUSH0_PROVER__SPOOL".into()).or_insert(spool);
        }
        if process.program.ends_with("prover-exec") {
            // `push0 logs` looks here.
            let logs = dir.join(ATTEMPTS).display().to_string();
            process.env.entry("PUSH0_EXEC__LOG_DIR".into()).or_insert(logs);
        }
        services.push(ServiceEntry {
            name: process.name.clone(),
            zkvm: process.zkvm.clone(),
            address,
        });
    }
    check::check(&processes).await?;
    let nats = broker::process(nats_server, &dir, nats_port, &secret, store_bytes)?;
    let endpoint = Endpoint {
        pid: std::process::id(),
        nats_url,
        secret,
        nats_port,
        store_bytes,
        submit,
        page: Some(page),
        services,
    };
    output::line(&format!("live page: http://{page}/"))?;
    endpoint.write(&dir)?;
    Ok(Deployment {
        dir,
        pipelines,
        processes,
        endpoint,
        nats,
    })
}

async fn supervise(deployment: Deployment, mut signals: Signals) -> Result<(), Failure> {
    let is_up = Arc::new(AtomicBool::new(false));
    let (stop, stop_broker) = (Shutdown::new(), Shutdown::new());
    let (services, nats) = (TaskGroup::new(), TaskGroup::new());
    let graces = deployment.processes.iter().map(|process| process.grace);
    let grace = graces.fold(deployment.nats.grace, Duration::max);
    let names: Vec<&str> = std::iter::once(&deployment.nats)
        .chain(&deployment.processes)
        .map(|process| process.name.as_str())
        .collect();
    let mut supervised = Prefix::all(&names)
        .into_iter()
        .zip(std::iter::once(&deployment.nats).chain(&deployment.processes))
        .map(|(prefix, process)| {
            let stop = if process.name == deployment.nats.name {
                &stop_broker
            } else {
                &stop
            };
            Supervised {
                process: process.clone(),
                prefix,
                is_up: is_up.clone(),
                stop: stop.clone(),
                restart: Arc::default(),
            }
        });
    let mut watched = None;
    if let Some(broker) = supervised.next() {
        watched = Some((broker.restart.clone(), broker.prefix.clone()));
        nats.spawn("broker", broker.run());
    }
    let bring_up = async {
        let bus = provision(&deployment).await?;
        for service in supervised {
            services.spawn("service", service.run());
        }
        all_ready(&deployment.endpoint.services).await;
        is_up.store(true, Ordering::Relaxed);
        let Endpoint {
            nats_url, services, ..
        } = &deployment.endpoint;
        let submit = deployment.endpoint.submit.into_iter();
        for line in submit.flat_map(|address| submit::urls(&deployment.pipelines, address)) {
            output::line(&line)?;
        }
        output::line(&format!(
            "push0 is up: {} processes, broker at {} (`push0 endpoint` prints its URL with the secret)",
            services.len(),
            without_userinfo(nats_url)
        ))?;
        if let Some((restart, prefix)) = watched {
            broker_watch::watch(deployment.dir.clone(), bus, restart, prefix).await;
        }
        std::future::pending::<Result<(), Failure>>().await
    };
    let outcome = tokio::select! {
        outcome = bring_up => outcome,
        () = stop.requested() => Ok(()),
        name = signals.next() => {
            output::note(&format!("push0: stopping ({name}), which may take {}", table::span(grace)));
            Ok(())
        }
    };
    let groups = [(services, stop), (nats, stop_broker)];
    end(outcome, groups, grace, signals).await
}

/// Stops the services and then the broker, and returns the outcome of the run.
async fn end(
    outcome: Result<(), Failure>,
    [(services, stop), (nats, stop_broker)]: [(TaskGroup, Shutdown); 2],
    grace: Duration,
    mut signals: Signals,
) -> Result<(), Failure> {
    stop.trigger();
    // Every process is killed after its grace; the two extra seconds are for the exits to be noticed.
    let patience = grace + Duration::from_secs(2);
    let stopped = async {
        let services = services.run_until(&stop, patience).await;
        stop_broker.trigger();
        let broker = nats.run_until(&stop_broker, patience).await;
        services.and(broker)
    };
    tokio::select! {
        stopped = stopped => outcome.and(stopped.map_err(|error| match refusal(&error) {
            Some(refused) => Failure::usage(refused.to_string()),
            None => error.into(),
        })),
        name = signals.next() => {
            output::note(&format!("push0: second signal ({name}), exiting at once"));
            std::process::exit(i32::from(exit::SECOND_SIGNAL));
        }
    }
}

/// Returns the refused configuration that ended the services, if that is why they ended.
fn refusal(error: &TaskError) -> Option<&Refused> {
    match error {
        TaskError::Failed { source, .. } => source.downcast_ref(),
        _ => None,
    }
}

async fn provision(deployment: &Deployment) -> Result<Bus, Failure> {
    let Deployment {
        dir,
        pipelines,
        endpoint,
        ..
    } = deployment;
    let config = NatsConfig {
        url: endpoint.nats_url.clone(),
        ..NatsConfig::default()
    };
    let bus = Bus::connect(&config, "push0 up").await?;
    if timeout(BROKER_WITHIN, bus.connected()).await.is_err() {
        return Err(Failure::failed(format!(
            "the broker does not start; the end of its log, {}",
            broker::last_words(dir)
        )));
    }
    let limits = Limits {
        store_bytes: endpoint.store_bytes,
        ..Limits::default()
    };
    // The broker answers before its streams are loaded.
    let until = Instant::now() + BROKER_WITHIN;
    while let Err(error) = bus.provision(&limits).await {
        if Instant::now() >= until {
            return Err(error.into());
        }
        sleep(LOOK_EVERY).await;
    }
    let applied = Pipelines::bind(&bus).await?;
    for pipeline in pipelines {
        let revision = applied.apply(pipeline.clone()).await?;
        output::line(&format!("pipeline {}: revision {revision}", pipeline.name))?;
    }
    let served: BTreeSet<_> = pipelines.iter().flat_map(Pipeline::zkvms).collect();
    for other in applied.current().await? {
        let unserved: Vec<String> = other
            .zkvms()
            .iter()
            .filter(|zkvm| !served.contains(*zkvm))
            .map(ToString::to_string)
            .collect();
        if !unserved.is_empty() {
            output::note(&format!(
                "push0: pipeline {} of an earlier run has no prover for {}: name its file too, or \
                 `push0 pipeline remove {}`",
                other.name,
                unserved.join(", "),
                other.name
            ));
        }
    }
    Ok(bus)
}

/// Waits until every service is ready. Names those that are not at regular intervals.
async fn all_ready(services: &[ServiceEntry]) {
    let progress = Progress::towards(services.len() as u64, "services ready");
    let mut said_at = Instant::now();
    loop {
        let answers = probe::all_ready(services.iter().map(|service| service.address)).await;
        let reasons = services.iter().zip(answers);
        let waiting: Vec<String> = reasons
            .filter_map(|(service, answer)| Some(format!("{} ({})", service.name, answer.err()?)))
            .collect();
        if waiting.is_empty() {
            return;
        }
        progress.at((services.len() - waiting.len()) as u64);
        if said_at.elapsed() >= SAY_EVERY {
            output::note(&format!("push0: not ready yet: {}", waiting.join(", ")));
            said_at = Instant::now();
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Signals that stop `push0 up`: SIGINT from a terminal, SIGTERM from a supervisor, SIGHUP
/// when the terminal closes.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn register() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
