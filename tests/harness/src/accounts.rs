//! The broker's users, from the shipped file `deploy/nats/nats-auth.conf` itself.
//!
//! A key is drawn for every user of the file. A test's prover or verifier becomes a user in the way
//! prescribed by the file: the block of a shipped prover or verifier is copied, with its name and zkVM
//! replaced. An additional user, `test`, has all permissions, because tests publish as external ingesters
//! and inspect everything.

use nkeys::KeyPair;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tempfile::TempDir;

/// Name of the users file, which lies beside the configuration.
pub(crate) const FILE: &str = "nats-auth.conf";
/// Name of the user with all permissions.
pub(crate) const TEST: &str = "test";
/// Text before the name of a user in the file.
const VARIABLE: &str = "nkey: $PUSH0_NKEY_";
/// The shipped prover and verifier whose blocks are copied.
const PROVER: Model = Model {
    user: "prover-mock-0",
    consumer: "prover-mock",
    zkvm: "mock",
};
const VERIFIER: Model = Model {
    user: "verifier-miden-0",
    consumer: "verifier-miden",
    zkvm: "miden",
};

/// A shipped user whose permissions are copied for other users of its kind.
struct Model {
    user: &'static str,
    consumer: &'static str,
    zkvm: &'static str,
}

/// The work of an adapter's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A process that makes proofs.
    Prover,
    /// A process that verifies proofs.
    Verifier,
}

/// A key for every user, in a directory of their own.
#[derive(Debug)]
pub(crate) struct Accounts {
    folder: TempDir,
    /// Text of the shipped users file.
    shipped: String,
    /// Public keys for the broker's environment, by variable name.
    public: BTreeMap<String, String>,
    /// User blocks added to those of the shipped file, by user name.
    others: Mutex<BTreeMap<String, String>>,
    /// User names by public key.
    keys: Mutex<BTreeMap<String, String>>,
}

impl Accounts {
    /// Draws a key for every user of the shipped file, and for [`TEST`].
    pub(crate) fn draw() -> Self {
        let shipped = shipped_file(FILE);
        let mut accounts = Self {
            folder: TempDir::new().expect("a temporary directory"),
            public: BTreeMap::new(),
            others: Mutex::default(),
            keys: Mutex::default(),
            shipped,
        };
        let variables = accounts
            .shipped
            .lines()
            .filter_map(|line| line.trim().strip_prefix(VARIABLE));
        let variables: Vec<String> = variables.map(str::to_owned).collect();
        for variable in variables {
            let public = accounts.key_for(&variable.to_lowercase().replace('_', "-"));
            accounts.public.insert(format!("PUSH0_NKEY_{variable}"), public);
        }
        let public = accounts.key_for(TEST);
        let all = "permissions: { publish: \">\", subscribe: \">\" }";
        accounts
            .others()
            .insert(TEST.into(), format!("    {{ nkey: {public}, {all} }}\n"));
        accounts.write();
        accounts
    }

    /// Adds a prover or verifier as a user; returns `false` if the user exists already.
    pub(crate) fn add(&self, name: &str, role: Role, zkvm: &str) -> bool {
        if self.seed(name).exists() {
            return false;
        }
        let model = if role == Role::Prover { PROVER } else { VERIFIER };
        let public = self.key_for(name);
        let variable = format!("$PUSH0_NKEY_{}", model.user.to_uppercase().replace('-', "_"));
        let block = block_of(&self.shipped, &variable)
            .replace(&variable, &public)
            // The placeholder protects the model's user name, which the consumer's name begins.
            .replace(model.user, "\0")
            .replace(model.consumer, &model.consumer.replace(model.zkvm, zkvm))
            .replace(&format!(".{}.", model.zkvm), &format!(".{zkvm}."))
            .replace('\0', name);
        self.others().insert(name.into(), block);
        self.write();
        true
    }

    /// Returns the file with this user's seed.
    pub(crate) fn seed(&self, user: &str) -> PathBuf {
        self.folder.path().join(format!("{user}.nk"))
    }

    /// Returns the users file included by the broker's configuration.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    /// Returns the public keys, for the broker's environment.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        self.public.clone().into_iter().collect()
    }

    /// Replaces users' keys by their names in a line of the broker's log.
    pub(crate) fn with_names(&self, line: &str) -> String {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter()
            .fold(line.to_owned(), |line, (public, name)| line.replace(public, name))
    }

    /// Draws a key, stores its seed, and returns its public half.
    fn key_for(&self, user: &str) -> String {
        let key = KeyPair::new_user();
        let seed = key.seed().expect("a drawn key has a seed");
        std::fs::write(self.seed(user), seed).expect("the seed is written");
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert(key.public_key(), user.into());
        key.public_key()
    }

    fn write(&self) {
        let end = self
            .shipped
            .rfind("\n  ]")
            .expect("nats-auth.conf lists its users in `users: [`");
        let (before, after) = self.shipped.split_at(end + 1);
        let others: String = self.others().values().cloned().collect();
        std::fs::write(self.file(), format!("{before}{others}{after}")).expect("the users are written");
    }

    fn others(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the lines of the user with this key, braces included.
fn block_of(file: &str, key: &str) -> String {
    let at = file
        .find(&format!("nkey: {key}\n"))
        .unwrap_or_else(|| panic!("{FILE} has no user {key}"));
    let begin = file[..at].rfind("    {\n").expect("a user begins with a brace");
    let end = at + file[at..].find("\n    }\n").expect("a user ends with a brace") + "\n    }\n".len();
    file[begin..end].to_owned()
}

/// Returns the text of a file of `deploy/nats`.
pub(crate) fn shipped_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy/nats")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_prover_may_say_and_take_what_is_its_own_and_nothing_of_the_model() {
        let accounts = Accounts::draw();
        assert!(accounts.add("p1", Role::Prover, "zisk"));
        assert!(accounts.add("v1", Role::Verifier, "zisk"));
        assert!(!accounts.add("p1", Role::Prover, "zisk"), "it is a user already");
        let others = accounts.others();
        for said in [
            ".lease.zisk.p1",
            ".control.p1",
            "PUSH0_TASKS.prover-zisk.>",
            ".result.zisk.>",
        ] {
            assert!(others["p1"].contains(said), "{said}: {}", others["p1"]);
        }
        for said in [
            ".lease.zisk.v1",
            "PUSH0_CHECKS.verifier-zisk.>",
            ".verdict.zisk.>",
        ] {
            assert!(others["v1"].contains(said), "{said}: {}", others["v1"]);
        }
        for (name, block) in others.iter().filter(|(name, _)| *name != TEST) {
            for foreign in ["mock", "miden", "NKEY"] {
                assert!(!block.contains(foreign), "{name} has {foreign}: {block}");
            }
        }
    }
}
