//! The broker's users, as `push0 auth` makes them.
//!
//! The book and the configuration come from `push0-accounts`, as in every deployment. An additional user, `test`, has all
//! permissions in the account of the control services, because tests publish as external ingesters and inspect everything.

use push0_accounts::{Book, Control, Member, configuration};
use push0_domain::{ProverId, ZkvmId, message::Role};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tempfile::TempDir;

/// Name of the directory included by the broker's configuration, which lies beside it.
pub(crate) const PUBLIC: &str = "auth";
/// Name of the user with all permissions.
pub(crate) const TEST: &str = "test";

/// A prover, a verifier or a fleet of them, as a user of the broker.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) zkvm: String,
    pub(crate) fleet: bool,
}

/// A key for every user, in a directory of their own.
#[derive(Debug)]
pub(crate) struct Accounts {
    folder: TempDir,
    book: Mutex<Book>,
    /// Public key of [`TEST`].
    test: String,
    /// User names by public key.
    names: Mutex<BTreeMap<String, String>>,
}

impl Accounts {
    /// Draws a key for every control user, and for [`TEST`].
    pub(crate) fn draw() -> Self {
        let mut accounts = Self {
            folder: TempDir::new().expect("a temporary directory"),
            book: Mutex::default(),
            test: String::new(),
            names: Mutex::default(),
        };
        accounts.test = accounts.key_for(TEST);
        let missing = accounts.book().missing();
        for name in missing {
            let key = accounts.key_for(name);
            accounts.book().set_key(name, key).expect("the name is needed");
        }
        std::fs::create_dir(accounts.public()).expect("a directory");
        accounts.write();
        accounts
    }

    /// Adds a user; returns `false` if the name exists already.
    pub(crate) fn add(&self, user: &User) -> bool {
        let name = &user.name;
        if self.seed(name).exists() {
            return false;
        }
        let member = Member {
            role: user.role,
            zkvm: ZkvmId::new(&user.zkvm).expect("a name"),
            key: self.key_for(name),
            fleet: user.fleet,
        };
        let added = self.book().add(ProverId::new(name).expect("a name"), member);
        added.unwrap_or_else(|e| panic!("{e}"));
        self.write();
        true
    }

    /// Removes a member, or refuses a replica.
    pub(crate) fn revoke(&self, name: &str) {
        let revoked = self.book().revoke(name);
        revoked.unwrap_or_else(|e| panic!("{e}"));
        self.write();
    }

    /// Returns the file with this user's seed.
    pub(crate) fn seed(&self, user: &str) -> PathBuf {
        self.folder.path().join(format!("{user}.nk"))
    }

    /// Returns the directory included by the broker's configuration.
    pub(crate) fn public(&self) -> PathBuf {
        self.folder.path().join(PUBLIC)
    }

    /// Returns the variables of an enroller.
    pub(crate) fn of_enroller(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("PUSH0_NATS__NKEY_SEED", self.seed(Control::Enroller.as_str())),
            ("PUSH0_ENROL__ACCOUNTS", self.public().join("accounts.json")),
            ("PUSH0_ENROL__ISSUER_SEED", self.seed("issuer")),
        ]
    }

    /// Replaces users' keys by their names in a line of the broker's log.
    pub(crate) fn with_names(&self, line: &str) -> String {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names
            .iter()
            .fold(line.to_owned(), |line, (public, name)| line.replace(public, name))
    }

    /// Draws a key, stores its seed, and returns its public half.
    fn key_for(&self, user: &str) -> String {
        let (seed, public) = Book::draw(Book::is_issuer(user));
        std::fs::write(self.seed(user), seed).expect("the seed is written");
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(public.clone(), user.into());
        public
    }

    fn write(&self) {
        let book = self.book();
        let all = format!("users: [\n      {{ nkey: {} }}\n", self.test);
        let text = configuration(&book).replacen("users: [\n", &all, 1);
        let json = serde_json::to_string(&*book).expect("a book is JSON");
        for (name, text) in [("nats-auth.conf", text), ("accounts.json", json)] {
            let (new, path) = (self.public().join("new"), self.public().join(name));
            std::fs::write(&new, text).expect("the accounts are written");
            std::fs::rename(new, path).expect("the accounts are replaced");
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
