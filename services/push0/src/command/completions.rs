//! `push0 completions` and `push0 man`: what shells and manuals need, from the definition of the command line.

use crate::failure::Failure;
use crate::output;
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Directory to write the pages to, such as /usr/local/share/man/man1.
    #[arg(id = "pages", value_name = "DIR")]
    dir: PathBuf,
}

/// Prints the completions of a shell for a command line.
pub(crate) fn completions(mut line: clap::Command, args: &CompletionsArgs) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut line, "push0", &mut text);
    output::raw(&text)
}

/// Writes one page for the command and one for each of its subcommands.
pub(crate) fn man(line: clap::Command, args: &ManArgs) -> Result<(), Failure> {
    let dir = args.dir.display();
    let refused = |error| {
        Failure::failed(format!(
            "{dir} cannot be written: {error}. Name another directory"
        ))
    };
    std::fs::create_dir_all(&args.dir).map_err(refused)?;
    clap_mangen::generate_to(line, &args.dir).map_err(refused)?;
    output::line(&format!("the pages are in {dir}: `man {dir}/push0.1`"))
}
