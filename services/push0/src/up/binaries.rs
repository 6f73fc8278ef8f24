//! Location of the services' programs: the directory of this program.

use std::path::PathBuf;

/// Variable that names another directory, used by tests for stand-ins of the services.
const DIR_VARIABLE: &str = "PUSH0_BIN_DIR";

/// Returns the program of a service such as `ingester` or `prover-miden`, whose file name may begin with
/// `push0-`. The error says where the program is missing.
pub(crate) fn find(name: &str) -> Result<PathBuf, String> {
    let dir = dir().ok_or("cannot find the directory of this program")?;
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
