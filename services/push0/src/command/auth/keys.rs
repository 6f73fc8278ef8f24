//! The directory of keys: seeds, the book, and the broker's configuration.
//!
//! `DIR/NAME.nk` are seeds, `DIR/gateway-tokens.toml` has the tokens of the live page. `DIR/public` holds no secret and is what brokers and enrollers mount: the book
//! (`accounts.json`) and the configuration (`nats-auth.conf`). A file is replaced in one step, so that no reader sees half
//! of it. A seed is written before the book names its key.

use crate::failure::Failure;
use push0_accounts::{Book, Member, configuration};
use push0_domain::ProverId;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

const BOOK: &str = "accounts.json";
const CONFIGURATION: &str = "nats-auth.conf";
/// The tokens of the live page.
const TOKENS: &str = "gateway-tokens.toml";
const PRIVATE: u32 = 0o600;
/// For containers of another user: the directory still keeps everybody else out.
const MOUNTED: u32 = 0o644;

/// A directory of keys.
pub(crate) struct Keys {
    dir: PathBuf,
    book: Book,
    /// Permissions of seed files.
    mode: u32,
}

impl Keys {
    /// Returns whether a directory has keys already.
    pub(crate) fn exist(dir: &Path) -> bool {
        dir.join("public").join(BOOK).exists()
    }

    /// Opens a directory that `init` made.
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join("public").join(BOOK);
        let text = fs::read(&path).map_err(|error| {
            Failure::usage(format!(
                "{}: {error}: `push0 auth init {}` makes it",
                path.display(),
                dir.display()
            ))
        })?;
        let book = serde_json::from_slice(&text)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        // Seeds drawn later are as readable as those drawn first.
        let first = fs::metadata(dir.join("issuer.nk")).map(|file| file.permissions().mode() & 0o777);
        Ok(Self {
            dir: dir.to_owned(),
            book,
            mode: first.unwrap_or(PRIVATE),
        })
    }

    /// Opens or makes a directory with every key that a deployment needs.
    pub(crate) fn init(dir: &Path, containers: bool) -> Result<Self, Failure> {
        let public = dir.join("public");
        let mut keys = if Self::exist(dir) {
            Self::open(dir)?
        } else {
            let mode = if containers { MOUNTED } else { PRIVATE };
            Self {
                dir: dir.to_owned(),
                book: Book::default(),
                mode,
            }
        };
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o700)))
            .and_then(|()| fs::create_dir_all(&public))
            .and_then(|()| fs::set_permissions(&public, fs::Permissions::from_mode(0o755)))
            .map_err(|error| Failure::failed(format!("{}: {error}", dir.display())))?;
        for name in keys.book.missing() {
            let (_, key) = keys.draw(name, false)?;
            keys.book.set_key(name, key)?;
        }
        keys.write_tokens()?;
        Ok(keys)
    }

    /// Draws the token of the live page, unless the file is there already.
    fn write_tokens(&self) -> Result<(), Failure> {
        let path = self.dir.join(TOKENS);
        if path.exists() {
            return Ok(());
        }
        let secret = rand::random::<u128>();
        let text =
            format!("[[token]]\nname = \"operator\"\nrole = \"operate\"\nsecret = \"{secret:032x}\"\n");
        replace(&path, &text, self.mode)
    }

    pub(crate) fn book(&self) -> &Book {
        &self.book
    }

    /// Returns the directory for brokers and enrollers.
    pub(crate) fn public(&self) -> PathBuf {
        self.dir.join("public")
    }

    pub(crate) fn has(&self, name: &ProverId) -> bool {
        self.book.members.contains_key(name)
    }

    /// Draws a key for a new member and returns the file of its seed. `member` completes the member with its key.
    pub(crate) fn add(
        &mut self,
        name: ProverId,
        member: impl FnOnce(String) -> Member,
    ) -> Result<PathBuf, Failure> {
        // The book decides before a file is written.
        let mut book = self.book.clone();
        book.add(name.clone(), member(String::new()))
            .map_err(|error| Failure::usage(error.to_string()))?;
        let (seed, key) = self.draw(name.as_str(), false)?;
        book.set_key(name.as_str(), key)?;
        self.book = book;
        Ok(seed)
    }

    /// Draws the key of a name anew and returns the file of its seed.
    pub(crate) fn rotate(&mut self, name: &str) -> Result<PathBuf, Failure> {
        let unknown = |error: push0_accounts::BookError| Failure::usage(error.to_string());
        self.book.clone().set_key(name, String::new()).map_err(unknown)?;
        let (seed, key) = self.draw(name, true)?;
        self.book.set_key(name, key)?;
        self.write()?;
        Ok(seed)
    }

    /// Removes a key, or refuses a replica. Returns whether the name had a key.
    pub(crate) fn revoke(&mut self, name: &str) -> Result<bool, Failure> {
        let had_key = self
            .book
            .revoke(name)
            .map_err(|error| Failure::usage(error.to_string()))?;
        self.write()?;
        if had_key {
            let seed = self.seed(name);
            match fs::remove_file(&seed) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Failure::failed(format!("{}: {error}: remove it", seed.display())));
                }
                _ => {}
            }
        }
        Ok(had_key)
    }

    /// Writes the book and the broker's configuration.
    pub(crate) fn write(&self) -> Result<(), Failure> {
        let public = self.public();
        let book = format!("{}\n", serde_json::to_string_pretty(&self.book)?);
        replace(&public.join(BOOK), &book, MOUNTED)?;
        replace(&public.join(CONFIGURATION), &configuration(&self.book), MOUNTED)
    }

    fn seed(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.nk"))
    }

    /// Returns the names whose seeds are not in the directory. They may have been moved to the machines that use them.
    pub(crate) fn without_seed(&self) -> Vec<&str> {
        self.book
            .names()
            .filter(|name| !self.seed(name).exists())
            .collect()
    }

    /// Draws a key and stores its seed. Returns the file and the public key.
    fn draw(&self, name: &str, replaces: bool) -> Result<(PathBuf, String), Failure> {
        let path = self.seed(name);
        if path.exists() && !replaces {
            return Err(Failure::usage(format!(
                "{} exists, and {BOOK} does not name its key: remove it first",
                path.display()
            )));
        }
        let (seed, key) = Book::draw(Book::is_issuer(name));
        replace(&path, &format!("{seed}\n"), self.mode)?;
        Ok((path, key))
    }
}

/// Replaces a file in one step.
fn replace(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let new = path.with_extension("new");
    let written = || -> io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        // The process's umask may have taken bits away.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}
