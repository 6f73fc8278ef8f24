//! Lifecycle of a service's process: start, work, stop.

use std::ffi::OsString;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Duration;

use futures::FutureExt as _;
use serde::de::DeserializeOwned;

use crate::exit::{self, BoxError};
use crate::shutdown::Signals;
use crate::{HasRuntimeConfig, Health, Invalid, RunArgs, Shutdown, args, config, http, tasks, telemetry};

/// Longest time for which the flush of queued traces may delay the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Input of a service, assembled by the runtime before the service starts.
#[derive(Debug)]
pub struct Service<C> {
    /// The loaded and validated configuration.
    pub config: C,
    /// Handle for observing the request to stop.
    pub shutdown: Shutdown,
    /// Readiness of the process; the service registers here the components needed for its work.
    pub health: Health,
    /// The service's name without the prefix `push0-`, such as `dispatcher`.
    pub name: &'static str,
    /// The version of the program.
    pub version: &'static str,
}

/// Runs a service as the whole process, with the command line shared by all services: `--config FILE` (or
/// `PUSH0_CONFIG`), `--check-config`, `--version`.
///
/// The exit code is 0 after a normal end, [`exit::CONFIG`] when the command line or the configuration is
/// wrong, and [`exit::FAILURE`] when the service failed, panicked, or did not stop in time.
pub fn run<C, F, Fut, E>(name: &'static str, version: &'static str, service: F) -> ExitCode
where
    C: DeserializeOwned + HasRuntimeConfig,
    F: FnOnce(Service<C>) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match args::parse(name, version, arguments) {
        Ok(args) => run_with(name, version, &args, service),
        Err(code) => code,
    }
}

/// Like [`run`], for a service that has parsed its command line itself.
pub fn run_with<C, F, Fut, E>(
    name: &'static str,
    version: &'static str,
    args: &RunArgs,
    service: F,
) -> ExitCode
where
    C: DeserializeOwned + HasRuntimeConfig,
    F: FnOnce(Service<C>) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    if args.check_start {
        return check_start::<C>(args, |_| Ok(()));
    }
    let loaded = config::load_from(args.config.as_deref(), std::env::vars_os(), check::<C>);
    let config = match loaded {
        Ok(config) => config,
        Err(error) => return refuse(name, exit::CONFIG, &error),
    };
    if args.check_config {
        println!("push0-{name}: configuration ok");
        return ExitCode::from(exit::OK);
    }
    if let Err(error) = config.check_files() {
        return refuse(name, exit::CONFIG, error.as_ref());
    }
    let runtime = match runtime(config.worker_threads()) {
        Ok(runtime) => runtime,
        Err(error) => return refuse(name, exit::FAILURE, &error),
    };
    // The trace exporter is built in the context of the runtime on which the exporter will run.
    let in_runtime = runtime.enter();
    let telemetry = match telemetry::init(name, version, config.telemetry()) {
        Ok(telemetry) => telemetry,
        Err(error) => return refuse(name, exit::FAILURE, &error),
    };
    drop(in_runtime);
    log_panics();
    tracing::info!(service = name, version, "starting");

    let outcome = runtime.block_on(supervise((name, version), config, service));
    let code = match outcome {
        Ok(()) => {
            tracing::info!(service = name, "stopped");
            exit::OK
        }
        Err(error) => {
            tracing::error!(service = name, error = exit::chain(error.as_ref()), "failed");
            exit::FAILURE
        }
    };
    // The last spans are sent on the runtime, and a runtime without worker threads makes progress only
    // inside `block_on`. The flush therefore runs on a blocking thread.
    let flush = runtime.spawn_blocking(move || telemetry.shutdown(FLUSH_TIMEOUT));
    // The process ends even if the flush failed.
    let _ = runtime.block_on(flush);
    // Tasks that still run have had their grace period. A regular shutdown would also wait for blocking
    // calls, possibly for ever.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Checks the configuration, the files that it names, and then the service's own `rest`, and returns the exit code. A
/// refusal is a line on stdout, [`exit::REFUSED`] and the reason, and [`exit::CONFIG`].
pub fn check_start<C>(args: &RunArgs, rest: impl FnOnce(&C) -> Result<(), BoxError>) -> ExitCode
where
    C: DeserializeOwned + HasRuntimeConfig,
{
    let loaded = config::load_from(args.config.as_deref(), std::env::vars_os(), check::<C>);
    let checked = loaded.map_err(BoxError::from).and_then(|config| {
        config.check_files()?;
        rest(&config)
    });
    let Err(error) = checked else {
        return ExitCode::from(exit::OK);
    };
    let reason = exit::chain(error.as_ref());
    println!(
        "{}{}",
        exit::REFUSED,
        reason.lines().collect::<Vec<_>>().join(" ")
    );
    ExitCode::from(exit::CONFIG)
}

fn runtime(worker_threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match worker_threads {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if worker_threads > 0 {
        builder.worker_threads(worker_threads);
    }
    builder.enable_all().build()
}

/// Runs all checks: those of the sections, then the service's own.
fn check<C: HasRuntimeConfig>(config: &C) -> Result<(), Invalid> {
    telemetry::check(config.telemetry())?;
    config.validate()
}

async fn supervise<C, F, Fut, E>(
    (name, version): (&'static str, &'static str),
    config: C,
    service: F,
) -> Result<(), BoxError>
where
    C: HasRuntimeConfig,
    F: FnOnce(Service<C>) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let shutdown = Shutdown::new();
    let health = Health::new(shutdown.clone());
    // The server lives until the service has ended, so that `/health/ready` can report `stopping`.
    let _server = http::serve(config.http(), health.clone()).await?;
    tokio::runtime::Handle::current().spawn(Signals::register()?.watch(shutdown.clone()));

    let grace = config.shutdown_grace();
    let work = service(Service {
        config,
        shutdown: shutdown.clone(),
        health,
        name,
        version,
    });
    let overdue = async {
        shutdown.requested().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        ended = AssertUnwindSafe(work).catch_unwind() => match ended {
            Ok(result) => result.map_err(Into::into),
            Err(panic) => Err(format!("panicked: {}", tasks::panic_message(panic.as_ref())).into()),
        },
        () = overdue => Err(format!("did not stop within {grace:?}").into()),
    }
}

/// Prints the reason of a failed start to stderr; logs are not set up yet.
fn refuse(name: &str, code: u8, error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("push0-{name}: {}", exit::chain(error));
    ExitCode::from(code)
}

/// Logs each panic with its location like any other error, instead of as free text on stderr.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = tasks::panic_message(panic.payload());
        let location = panic.location().map(ToString::to_string);
        tracing::error!(reason = message, location, "a task panicked: report this line");
    }));
}
