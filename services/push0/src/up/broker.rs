//! Broker of `push0 up`: location and configuration of nats-server.

use super::plan::Process;
use crate::failure::Failure;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Oldest version with atomic batches, message schedules and per-message TTL on work queues.
const VERSION_MIN: (u32, u32) = (2, 12);
const VARIABLE: &str = "NATS_SERVER";
/// Time limit for the broker to stop before it is killed. It writes the state of every stream to disk first.
const GRACE: Duration = Duration::from_secs(10);
/// Number of last log lines printed when the broker does not start.
const LOG_LINES: usize = 8;

/// Returns the path of a nats-server that is new enough.
pub(crate) fn find() -> Result<PathBuf, Failure> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(named);
        return match check(&path) {
            Ok(()) => Ok(path),
            Err(reason) => Err(Failure::usage(format!("{VARIABLE}: {reason}"))),
        };
    }
    let mut reasons = Vec::new();
    for path in candidates() {
        match check(&path) {
            Ok(()) => return Ok(path),
            Err(reason) => reasons.push(reason),
        }
    }
    let found = if reasons.is_empty() {
        String::new()
    } else {
        format!(" ({})", reasons.join("; "))
    };
    Err(Failure::failed(format!(
        "no nats-server >= {}.{} found{found}: run scripts/setup, put it on PATH, or set {VARIABLE}",
        VERSION_MIN.0, VERSION_MIN.1
    )))
}

/// Returns the candidates in order: `.tools/bin` (created by scripts/setup) in the working directory and in
/// all directories above this program, then PATH.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let here = std::env::current_dir().ok();
    let program = std::env::current_exe().ok();
    let above = program
        .iter()
        .flat_map(|path| path.ancestors().skip(1).map(Path::to_owned))
        .collect::<Vec<_>>();
    let tools = here
        .into_iter()
        .chain(above)
        .map(|dir| dir.join(".tools/bin/nats-server"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::split_paths(&path)
        .map(|dir| dir.join("nats-server"))
        .collect::<Vec<_>>();
    tools.chain(path).filter(|path| path.is_file())
}

fn check(path: &Path) -> Result<(), String> {
    let said = Command::new(path).arg("--version").stdin(Stdio::null()).output();
    let said = said.map_err(|error| format!("{} does not run: {error}", path.display()))?;
    let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    match version(&said) {
        Some(version) if version >= VERSION_MIN => Ok(()),
        Some((major, minor)) => Err(format!("{} is version {major}.{minor}", path.display())),
        None => Err(format!(
            "{} --version prints no version but `{}`",
            path.display(),
            said.lines().next().unwrap_or("")
        )),
    }
}

/// Parses the output of `nats-server --version`, such as `nats-server: v2.15.1`.
fn version(said: &str) -> Option<(u32, u32)> {
    let (_, version) = said.split_once(": v")?;
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The user of everything that `push0 up` starts.
pub(crate) const USER: &str = "push0";

/// Writes the configuration to `dir/nats` and returns the broker's process.
pub(crate) fn process(
    program: PathBuf,
    dir: &Path,
    port: u16,
    secret: &str,
    store_bytes: u64,
) -> Result<Process, Failure> {
    let home = dir.join("nats");
    std::fs::create_dir_all(home.join("store"))?;
    let file = home.join("nats.conf");
    // Temporary files are private, and this one holds the secret.
    let mut private = tempfile::NamedTempFile::new_in(&home)?;
    private.write_all(config(&home, port, secret, store_bytes)?.as_bytes())?;
    private.persist(&file)?;
    Ok(Process {
        name: "nats".into(),
        zkvm: None,
        program,
        args: vec!["-c".into(), file.into()],
        env: BTreeMap::new(),
        grace: GRACE,
    })
}

fn config(home: &Path, port: u16, secret: &str, store_bytes: u64) -> Result<String, Failure> {
    let quoted = |path: PathBuf| match path.to_str() {
        Some(path) if !path.contains(['"', '\\', '\n']) => Ok(format!("\"{path}\"")),
        _ => Err(Failure::usage(format!(
            "{}: nats-server needs a UTF-8 path without quotes, backslashes and line breaks",
            path.display()
        ))),
    };
    // Streams and buckets reserve the whole `store_bytes`; the rest is for their bookkeeping.
    let max_file = store_bytes + store_bytes / 10;
    Ok(format!(
        "# Written by `push0 up` at every start.\n\
         server_name: push0\n\
         listen: \"127.0.0.1:{port}\"\n\
         # Other users of this machine reach the port, and must not use it.\n\
         authorization {{ user: {USER}, password: \"{secret}\" }}\n\
         # Bodies have at most 1 MiB; headers count too.\n\
         max_payload: 2MB\n\
         jetstream {{\n  store_dir: {}\n  max_mem: 64MB\n  max_file: {max_file}\n}}\n\
         logfile: {}\n\
         logfile_size_limit: 10MB\n\
         logfile_max_num: 3\n",
        quoted(home.join("store"))?,
        quoted(home.join("nats.log"))?,
    ))
}

/// Returns the path and the last lines of the broker's log, which say why it does not start.
pub(crate) fn last_words(dir: &Path) -> String {
    let file = dir.join("nats/nats.log");
    let log = std::fs::read_to_string(&file).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines.len().saturating_sub(LOG_LINES);
    format!(
        "{}:\n{}",
        file.display(),
        lines.get(last..).unwrap_or_default().join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(version("nats-server: v2.15.1"), Some((2, 15)));
        assert!(version("nats-server: v2.9.0").unwrap() < VERSION_MIN);
        assert!(version("nats-server: v3.0.0-beta").unwrap() > VERSION_MIN);
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn a_path_that_would_break_the_configuration_is_refused() {
        assert!(config(Path::new("/a\"b"), 4222, "s", 1 << 30).is_err());
        let text = config(Path::new("/a b"), 4222, "s", 1 << 30).ok().unwrap();
        assert!(text.contains("store_dir: \"/a b/store\"\n"), "{text}");
    }
}
