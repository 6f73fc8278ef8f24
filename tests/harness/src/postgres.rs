//! A private PostgreSQL server, for comparisons.
//!
//! PostgreSQL refuses to run as root. If the test runs as root, the server runs as the user `postgres`,
//! created by Debian's package.

use crate::child::{Child, Spec};
use crate::wait;
use nix::{
    sys::signal::Signal,
    unistd::{User, chown},
};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

const START: Duration = Duration::from_secs(20);
const NEEDED: &str = "PostgreSQL's server is not installed: `apt-get install postgresql` brings it";

/// A PostgreSQL server on a free loopback port, with its own directory. Dropping the value ends the server
/// and deletes the directory.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Postgres {
    /// Starts a server that survives the kill of any of its processes but not a power cut, like the broker by
    /// default. `Err` names the missing package.
    ///
    /// # Panics
    /// The server is installed but does not start.
    pub async fn start() -> Result<Self, String> {
        let programs = programs().ok_or(NEEDED)?;
        let folder = TempDir::new().expect("a temporary directory");
        let user = owner(folder.path())?;
        let data = folder.path().join("data");
        let mut initdb = as_user(user.as_ref(), folder.path(), &programs.join("initdb"));
        initdb.arg("-D").arg(&data);
        initdb.args([
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
        ]);
        let made = initdb.output().expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

        let port = free_port();
        let mut server = as_user(user.as_ref(), folder.path(), &programs.join("postgres"));
        server.arg("-D").arg(&data).arg("-k").arg(folder.path());
        let settings = [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".into(),
            "max_connections=200".into(),
            "fsync=off".into(),
            "shared_buffers=256MB".into(),
        ];
        settings.iter().for_each(|setting| {
            server.arg("-c").arg(setting);
        });
        let spec = Spec {
            program: server.get_program().into(),
            args: server.get_args().map(Into::into).collect(),
            env: Vec::new(),
            log: folder.path().join("log"),
        };
        let child = Child::spawn(&spec).unwrap_or_else(|e| panic!("{}: {e}", spec.program.display()));
        let ready = async || child.log().contains("ready to accept connections");
        if wait::look(START, ready).await.is_err() {
            panic!("PostgreSQL does not start; its log ends:\n{}", child.tail());
        }
        Ok(Self {
            child,
            port,
            _folder: folder,
        })
    }

    /// Returns the connection string.
    pub fn url(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // On SIGQUIT the server's child processes end too; after SIGKILL they would outlive the server
        // for a moment.
        self.child.end(Signal::SIGQUIT);
    }
}

/// Returns the directory of initdb and postgres, from `pg_config` or else from Debian's newest package.
fn programs() -> Option<PathBuf> {
    let said = Command::new("pg_config").arg("--bindir").output().ok();
    let said = said.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut packaged: Vec<PathBuf> = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    packaged.sort();
    let mut places = said.into_iter().chain(packaged.into_iter().rev());
    places.find(|place| place.join("initdb").is_file() && place.join("postgres").is_file())
}

/// Returns the user who runs the server, or `None` for the test's own user. The directory is given
/// to the user.
fn owner(folder: &Path) -> Result<Option<User>, String> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name("postgres").ok().flatten().ok_or(NEEDED)?;
    chown(folder, Some(user.uid), Some(user.gid)).expect("root may give directories away");
    Ok(Some(user))
}

/// Builds a command that runs in `folder`, because `user` may not be able to read the current directory. A
/// change of user clears the parent-death signal, so `setpriv` sets the signal again.
fn as_user(user: Option<&User>, folder: &Path, program: &Path) -> Command {
    let mut command = Command::new("env");
    command.arg("-C").arg(folder);
    if let Some(user) = user {
        command.args(["setpriv", "--reuid", &user.name, "--regid", &user.gid.to_string()]);
        command.args(["--clear-groups", "--pdeathsig", "KILL", "--"]);
    }
    command.arg(program);
    command
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
