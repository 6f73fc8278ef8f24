//! Programs of `examples/` as processes of a test.

use push0_harness::{Process, ProcessBuilder};
use std::path::{Path, PathBuf};

/// Returns a file of the repository, by its path from the root.
///
/// # Panics
/// The file does not exist.
pub fn repository_file(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = root.join(path);
    assert!(file.exists(), "{path} is missing");
    file
}

/// Returns a Python program of `examples/`, by its path in that directory, with the packages that
/// `scripts/setup python` installed.
///
/// # Panics
/// Python or the packages are missing. A test without them fails and is not skipped.
pub fn python(label: &str, script: &str) -> ProcessBuilder {
    let script = repository_file(&format!("examples/{script}"));
    interpreter().label(label).arg(script)
}

/// Returns the Python interpreter with the packages that the examples need.
///
/// # Panics
/// Python or the packages are missing.
pub fn interpreter() -> ProcessBuilder {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let python = std::env::split_paths(&path)
        .map(|folder| folder.join("python3"))
        .find(|path| path.is_file());
    let python =
        python.expect("python3 is not on PATH: install it (Debian: apt install python3 python3-pip)");
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/python");
    assert!(
        packages.join("nats").is_dir(),
        "the Python packages of examples/ are not in .tools/python: run `scripts/setup python`"
    );
    Process::program(&python.display().to_string())
        .env("PYTHONPATH", packages.display())
        .env("PYTHONUNBUFFERED", 1)
        .env("PYTHONDONTWRITEBYTECODE", 1)
}
