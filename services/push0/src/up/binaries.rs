//! Finding the services' programs: beside this one.

use std::path::PathBuf;

/// Where tests keep stand-ins for the services.
const DIR_VARIABLE: &str = "PUSH0_BIN_DIR";

/// The program of a service such as `ingester` or `prover-miden`, with or without `push0-` before
/// its name; or, in words, that it is not there.
pub(crate) fn find(name: &str) -> Result<PathBuf, String> {
    let dir = dir().ok_or("cannot tell where this program lies")?;
    let candidates = [dir.join(name), dir.join(format!("push0-{name}"))];
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        format!(
            "program `{name}` is not in {}: build it with `cargo build --release -p push0-{name}`",
            dir.display()
        )
    })
}

fn dir() -> Option<PathBuf> {
    match std::env::var_os(DIR_VARIABLE).filter(|dir| !dir.is_empty()) {
        Some(dir) => Some(dir.into()),
        None => Some(std::env::current_exe().ok()?.parent()?.to_owned()),
    }
}
