//! Adapter to run any program as a prover: inputs in a file, outputs in a file, an exit code.
//!
//! The contract is the same as in push0's demo: `BIN --input-path IN.json --output-path OUT.json`, exit
//! code 0 after the output is written, otherwise the reason on stderr or stdout. Each attempt runs in a fresh
//! directory, under a keeper: a process that ends all processes of the program, with SIGTERM, a grace
//! and SIGKILL, when the attempt ends, is stopped or times out, and when the adapter dies, however it dies.

mod cgroup;
mod classes;
mod config;
mod family;
mod foreign;
mod format;
mod keeper;
mod launch;
mod logs;
mod output;
mod program;
mod report;
mod scratch;
mod template;
mod tree;

use cgroup::Cgroup;
use classes::Classes;
pub use classes::{ExitCodes, Patterns};
pub use config::{Config, ExecConfig, Input, Limits};
use logs::{AttemptLog, Logs};
pub use program::Programs;
use program::{Held, NotRun, Place};
use push0_domain::{
    BlockHash, BlockRef,
    message::{FailureClass, TEXT_LEN_MAX},
    plain::plain,
    verdict,
};
use push0_prover_sdk::{Prove, ProveError, Role, Statement, Verify, Work};
use report::{End, Ended, Order, Rlimits};
use scratch::{Folder, Scratch};
use std::{
    ffi::{OsStr, OsString},
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use template::Values;
use tokio::{process::Command, task::spawn_blocking};

/// Free room on the scratch disk, in bytes, below which a failure is the disk's.
const FULL_BELOW: u64 = 1 << 20;
/// Room in a failure's message beside the output.
const WORDS_LEN: usize = 640;

/// Variables of the adapter that programs see, beside `LC_…` and those of `exec.inherit`.
const INHERITED: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
];

/// Prover and verifier made of external programs.
#[derive(Clone, Debug)]
pub struct Exec {
    config: Arc<ExecConfig>,
    classes: Arc<Classes>,
    scratch: Arc<Scratch>,
    logs: Option<Arc<Logs>>,
    programs: Programs,
}

/// Reason why the adapter cannot work with its configuration.
#[derive(Debug, thiserror::Error)]
#[error("exec.{key}: {problem}")]
pub struct Unusable {
    key: String,
    problem: String,
}

/// Runs this process as a helper of an adapter, if its command line says so: as keeper of a program, or as
/// the program until it starts. Returns `None` for an adapter.
pub fn helper(args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let args: Vec<OsString> = args.skip(1).collect();
    let [name, text, _, program @ ..] = args.as_slice() else {
        return None;
    };
    let text = text.to_str()?;
    match name.to_str()? {
        "__keep" => Some(keeper::run(text, program)),
        "__program" => Some(launch::run(text, program)),
        _ => None,
    }
}

impl Exec {
    /// Returns an adapter for the configured programs. Fails if the program for `role` is missing, or if a
    /// directory cannot be used. `keeper` is the program `prover-exec`; `None` means this process's own.
    pub fn new(config: &Config, role: Role, keeper: Option<PathBuf>) -> Result<Self, Unusable> {
        let slots = config.prover.slots;
        let config = &config.exec;
        let (key, program) = match role {
            Role::Prover => ("program", &config.program),
            Role::Verifier => ("verify_program", &config.verify_program),
        };
        let refused = |key: &str, problem: String| {
            Err(Unusable {
                key: key.to_owned(),
                problem,
            })
        };
        if program.as_os_str().is_empty() {
            return refused(
                key,
                format!("needed to run as a {role:?}: expected a program").to_lowercase(),
            );
        }
        if is_path(program) && !program.is_file() {
            return refused(key, format!("{} does not exist", program.display()));
        }
        let unusable = |key: &str, problem: String| Unusable {
            key: key.to_owned(),
            problem,
        };
        let classes = Classes::new(&config.patterns).map_err(|wrong| unusable(&wrong.key, wrong.expected))?;
        let logs = match role {
            Role::Prover => Logs::new(config).map_err(|e| unusable("log_dir", e.to_string()))?,
            Role::Verifier => None,
        };
        let programs =
            Programs::new(keeper, slots, config.grace).map_err(|e| unusable(key, e.to_string()))?;
        let config = from_anywhere(config).map_err(|e| unusable(key, e.to_string()))?;
        let scratch = Scratch::new(&config.work_dir).map_err(|e| unusable("work_dir", e.to_string()))?;
        let exec = Self {
            config: Arc::new(config),
            classes: Arc::new(classes),
            scratch: Arc::new(scratch),
            logs: logs.map(Arc::new),
            programs,
        };
        exec.prepare()?;
        Ok(exec)
    }

    /// Returns the programs that run, for the end of the process.
    pub fn programs(&self) -> Programs {
        self.programs.clone()
    }

    /// Removes leftovers of dead adapters, and says how programs are limited.
    fn prepare(&self) -> Result<(), Unusable> {
        let swept = self.scratch.sweep();
        if swept > 0 {
            let parent = self.scratch.parent().display();
            tracing::info!(%parent, swept, "removed scratch directories of adapters that died");
        }
        let limits = &self.config.limits;
        if limits.cgroup.as_os_str().is_empty() {
            if limits.cpu_millis > 0 {
                return Err(Unusable {
                    key: "limits.cpu_millis".into(),
                    problem: "needs limits.cgroup".into(),
                });
            }
            if limits.memory_bytes > 0 {
                tracing::info!(
                    "programs are limited by setrlimit: memory is the address space of each process"
                );
            }
            return Ok(());
        }
        cgroup::sweep(limits);
        cgroup::create(limits).map_err(|e| Unusable {
            key: "limits.cgroup".into(),
            problem: format!("no cgroup can be made: {e}"),
        })?;
        tracing::info!(cgroup = %limits.cgroup.display(), "programs are limited by cgroups");
        Ok(())
    }

    fn command(&self, program: &Path, args: &[String], values: &Values<'_>) -> Vec<OsString> {
        let args = args.iter().map(|arg| values.fill(arg));
        std::iter::once(program.into()).chain(args).collect()
    }

    /// Runs a program under a keeper.
    async fn run(
        &self,
        place: Place,
        folder: &Arc<Folder>,
        command: Vec<OsString>,
        log: Option<&AttemptLog>,
    ) -> Result<Ended, ProveError> {
        let limits = &self.config.limits;
        let in_cgroup = !limits.cgroup.as_os_str().is_empty();
        let cgroup = in_cgroup.then(|| cgroup::create(limits)).transpose();
        let cgroup = cgroup.map_err(|e| ProveError::surroundings(format!("exec.limits.cgroup: {e}")))?;
        let order = self.order(folder, cgroup.as_ref(), log);
        let environment = |keeper: &mut Command| {
            // The adapter's environment holds credentials: its own settings, and tokens of a cloud or of telemetry.
            keeper.env_clear();
            let inherited = |name: &OsStr| {
                let name = name.to_string_lossy();
                let also = self.config.inherit.iter().any(|also| *also == name);
                also || INHERITED.contains(&&*name) || name.starts_with("LC_")
            };
            // Temporary files of a program that was killed go with its attempt.
            keeper.env("TMPDIR", folder.path());
            keeper.envs(std::env::vars_os().filter(|(name, _)| inherited(name)));
            keeper.envs(&self.config.env);
        };
        let held = Held {
            cgroup,
            place,
            folder: folder.clone(),
        };
        let ran = self.programs.run(held, &order, &command, environment);
        let name = || {
            command
                .first()
                .map(|name| name.display().to_string())
                .unwrap_or_default()
        };
        ran.await.map_err(|error| match error {
            NotRun::NotStarted(reason) => {
                ProveError::surroundings(format!("{} did not start: {reason}", name()))
            }
            NotRun::Lost => ProveError::retryable(format!("{}: {error}", name())),
        })
    }

    fn order(&self, folder: &Folder, cgroup: Option<&Cgroup>, log: Option<&AttemptLog>) -> Order {
        let limits = &self.config.limits;
        let some = |limit: u64| (limit > 0).then_some(limit);
        Order {
            grace_ms: u64::try_from(self.config.grace.as_millis()).unwrap_or(u64::MAX),
            directory: folder.path().to_owned(),
            scratch: folder.locked().to_owned(),
            log: log.map(AttemptLog::order),
            rlimits: Rlimits {
                memory_bytes: some(limits.memory_bytes).filter(|_| cgroup.is_none()),
                cpu_seconds: some(limits.cpu_seconds),
                file_bytes: some(limits.file_bytes),
            },
            cgroup: cgroup.map(|cgroup| cgroup.path().to_owned()),
        }
    }

    /// Classifies how the program ended; `None` if it succeeded.
    fn failure(&self, ended: &Ended, log: Option<&AttemptLog>) -> Option<ProveError> {
        if ended.end == End::Code(0) {
            return None;
        }
        let (stdout, stderr) = (plain(&ended.stdout), plain(&ended.stderr));
        let outputs = [stderr.as_str(), stdout.as_str()];
        let known = self.classes.of(ended, &self.config.exit_codes, outputs);
        let mut how = classes::describe(ended.end);
        let class = known.unwrap_or_else(|| {
            if self.scratch_is_full() {
                let parent = self.scratch.parent().display();
                how += &format!(" while the scratch disk ({parent}) has no space left");
                FailureClass::Surroundings
            } else {
                FailureClass::Retryable
            }
        });
        if class == FailureClass::Surroundings && classes::is_told_to_end(ended) {
            how += ", told to by a signal that this adapter did not send";
        }
        Some(ProveError {
            class,
            message: message(
                &how,
                &stdout,
                &stderr,
                log.and_then(AttemptLog::place),
                ended.log_lost.as_deref(),
            ),
        })
    }

    fn scratch_is_full(&self) -> bool {
        nix::sys::statvfs::statvfs(self.scratch.parent())
            .is_ok_and(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()) < FULL_BELOW)
    }
}

/// Returns whether a program is named by its path. A name without a slash is looked up in `PATH` when the program runs.
fn is_path(program: &Path) -> bool {
    program.components().count() > 1
}

/// Returns the configuration with absolute paths of the programs, because a program runs in its attempt's directory.
/// Warns of arguments that name files by relative paths.
fn from_anywhere(config: &ExecConfig) -> io::Result<ExecConfig> {
    let mut config = config.clone();
    for program in [&mut config.program, &mut config.verify_program] {
        if is_path(program) {
            *program = std::path::absolute(&program)?;
        }
    }
    for arg in config.args.iter().chain(&config.verify_args) {
        let path = Path::new(arg);
        if path.is_relative() && path.is_file() {
            tracing::warn!(
                arg,
                "an argument of a program names a file of this directory, but programs run in the directories of their \
                 attempts: write the whole path if the file is meant"
            );
        }
    }
    Ok(config)
}

/// Composes the message of a failure from the ends of both streams. Each gets at least half of the room.
fn message(how: &str, stdout: &str, stderr: &str, log: Option<String>, lost: Option<&str>) -> String {
    let room = TEXT_LEN_MAX.saturating_sub(WORDS_LEN);
    let for_stderr = room - stdout.len().min(room / 2);
    let stderr = output::end_of(stderr.trim(), for_stderr);
    let stdout = output::end_of(stdout.trim(), room - stderr.len());
    let mut message = match (stderr, stdout) {
        ("", "") => format!("the program {how} and wrote nothing to stderr or stdout"),
        ("", stdout) => format!("the program {how}; stdout: {stdout}"),
        (stderr, "") => format!("the program {how}: {stderr}"),
        (stderr, stdout) => format!("the program {how}: {stderr}\nstdout: {stdout}"),
    };
    match (log, lost) {
        (Some(log), None) => message += &format!("\nwhole output: {log}"),
        (Some(log), Some(reason)) => message += &format!("\noutput, not complete ({reason}): {log}"),
        (None, Some(reason)) => message += &format!("\nthe output could not be kept: {reason}"),
        (None, None) => {}
    }
    message
}

/// Returns the values of the placeholders [`template::ABOUT_BLOCK`]. `first` equals
/// `block` except for ranges.
fn about(
    block: &BlockRef,
    first: &BlockRef,
    parent: &BlockHash,
    program_id: Option<&String>,
) -> [String; template::ABOUT_BLOCK.len()] {
    [
        block.number.to_string(),
        block.hash.to_string(),
        first.number.to_string(),
        first.hash.to_string(),
        parent.to_string(),
        program_id.cloned().unwrap_or_default(),
    ]
}

/// Runs blocking file I/O on a thread where blocking is allowed. A failure is the disk's, not the task's.
async fn on_disk<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ProveError> {
    let done = spawn_blocking(work).await.map_err(io::Error::other);
    done.flatten().map_err(|e| {
        let said = format!("{what}: {e}");
        // The program made something else of the file.
        match e.kind() {
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => ProveError::retryable(said),
            _ => ProveError::surroundings(said),
        }
    })
}

/// Writes the input of a program to a file in a fresh folder.
fn folder_with(scratch: &Scratch, name: &str, bytes: &[u8]) -> io::Result<Arc<Folder>> {
    let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", scratch.parent().display()));
    let folder = scratch.folder().map_err(at)?;
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(folder.path().join(name));
    file.and_then(|mut file| file.write_all(bytes)).map_err(at)?;
    Ok(Arc::new(folder))
}

impl Exec {
    async fn place(&self, limit: Duration) -> Result<Place, ProveError> {
        let place = self.programs.place(limit).await;
        place.map_err(|reason| ProveError::surroundings(reason.to_string()))
    }
}

impl Prove for Exec {
    async fn prove(&self, work: Work) -> Result<Vec<Vec<u8>>, ProveError> {
        let (header, max) = (work.header.clone(), self.config.output_bytes_max);
        // The other half is the task's own: waiting for another program must not end in its timeout.
        let place = self.place(Duration::from_millis(header.timeout_ms) / 2).await?;
        let input = format::input(work, self.config.input)?;
        let (scratch, logs, of) = (self.scratch.clone(), self.logs.clone(), header.clone());
        let (folder, log) = on_disk("input file", move || {
            let log = logs.map(|logs| logs.attempt(&of));
            Ok((folder_with(&scratch, "IN.json", &input)?, log))
        })
        .await?;
        let (from, to) = (folder.path().join("IN.json"), folder.path().join("OUT.json"));
        let id = &header.id.stage;
        let values = Values {
            files: &[("input", &from), ("output", &to)],
            about: about(
                &id.block,
                &id.first_block(),
                &header.context.parent_hash,
                header.program_id.as_ref(),
            ),
        };
        let command = self.command(&self.config.program, &self.config.args, &values);
        let ended = self.run(place, &folder, command, log.as_ref()).await?;
        if let (Some(reason), Some(logs)) = (&ended.log_lost, &self.logs) {
            logs.lost(reason);
        }
        if let Some(failure) = self.failure(&ended, log.as_ref()) {
            return Err(failure);
        }
        let read = on_disk("output file", move || {
            let read = foreign::read_at_most(&to, max);
            drop(folder);
            read
        });
        match read.await? {
            Some(output) => format::outputs(header.kind, output),
            // The program or this adapter's limit is at fault: the results of other tasks tell.
            None => Err(ProveError::retryable(format!(
                "the output file is larger than {max} bytes (exec.output_bytes_max)"
            ))),
        }
    }
}

impl Verify for Exec {
    async fn verify(&self, statement: Statement, output: Vec<u8>) -> Result<Option<String>, ProveError> {
        let place = self.place(Duration::MAX).await?;
        let scratch = self.scratch.clone();
        let folder = on_disk("proof file", move || folder_with(&scratch, "PROOF", &output)).await?;
        let proof = folder.path().join("PROOF");
        let values = Values {
            files: &[("proof", &proof)],
            about: about(
                &statement.block.block,
                &statement.first_block().block,
                &statement.parent_hash(),
                statement.program_id.as_ref(),
            ),
        };
        let command = self.command(&self.config.verify_program, &self.config.verify_args, &values);
        let ended = self.run(place, &folder, command, None).await?;
        verdict(&ended)
    }
}

/// Returns the verdict of a program that ended; an error if the program gave none.
fn verdict(ended: &Ended) -> Result<Option<String>, ProveError> {
    let code = match ended.end {
        End::Code(code) => Some(code),
        _ => None,
    };
    match verdict::of_program(code, &plain(&ended.stdout)) {
        Some(verdict) => Ok(verdict.err()),
        None => {
            let stderr = plain(&ended.stderr);
            let said = match output::end_of(&stderr, TEXT_LEN_MAX).trim() {
                "" => "it wrote nothing to stderr",
                said => said,
            };
            Err(ProveError::surroundings(format!(
                "the verifier {} without a verdict (exit code 65 and the line `{}: REASON` on stdout refuse a proof): {said}",
                classes::describe(ended.end),
                verdict::INVALID,
            )))
        }
    }
}
