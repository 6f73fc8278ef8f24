//! A PostgreSQL server of its own, for comparisons.
//!
//! PostgreSQL refuses to run as root: then it runs as the user `postgres`, whom Debian's package makes.

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

/// A PostgreSQL server on a free loopback port, with a directory of its own. When dropped it is ended
/// and the directory deleted.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Postgres {
    /// Starts one that survives the kill of any of its processes and not a power cut, as the broker by
    /// default does; `Err` says what is not installed.
    ///
    /// # Panics
    /// It is installed and does not start.
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

    /// How to connect to it.
    pub fn url(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its own children end with it on SIGQUIT; they would outlive a SIGKILL for a moment.
        self.child.end(Signal::SIGQUIT);
    }
}

/// Where initdb and postgres are: what `pg_config` says, or the newest of Debian's.
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

/// Whose server it is, if not ours: the directory is given to him.
fn owner(folder: &Path) -> Result<Option<User>, String> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name("postgres").ok().flatten().ok_or(NEEDED)?;
    chown(folder, Some(user.uid), Some(user.gid)).expect("root may give directories away");
    Ok(Some(user))
}

/// In the folder, since the user may not look into the present one. A change of user takes away that a
/// program ends with its parent: it is asked for again.
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
