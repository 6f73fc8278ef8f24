//! Command line shared by all services.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory, FromArgMatches, Parser};

use crate::exit;

/// Arguments of every service. A service with flags of its own flattens them into its parser
/// (`#[command(flatten)]`) and calls [`run_with`](crate::run_with).
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// Configuration file (TOML); environment variables PUSH0_SECTION__KEY override the file.
    #[arg(long, env = "PUSH0_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Load and check the configuration, then exit.
    #[arg(long)]
    pub check_config: bool,

    /// Check all that the start reads, the files too, then exit. `push0 up` asks each program before it starts any.
    #[arg(long, hide = true)]
    pub check_start: bool,
}

#[derive(Parser)]
struct Plain {
    #[command(flatten)]
    run: RunArgs,
}

/// Parses the arguments of a service without flags of its own. `--help` and `--version` print their text
/// here and end the parsing with an exit code.
///
/// # Errors
/// The exit code: 0 after `--help` or `--version`, [`exit::CONFIG`] after a usage error.
pub fn parse(
    name: &'static str,
    version: &'static str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<RunArgs, ExitCode> {
    command(name, version)
        .try_get_matches_from(args)
        .and_then(|matches| Plain::from_arg_matches(&matches))
        .map(|plain| plain.run)
        .map_err(|error| {
            // Printing fails when stdout or stderr is closed; there is no other place to report to.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() {
                exit::CONFIG
            } else {
                exit::OK
            })
        })
}

fn command(name: &'static str, version: &'static str) -> Command {
    let full_name = format!("push0-{name}");
    let about =
        format!("Runs the push0 service {name}. docs/configure.md has its settings, README.md has its task.");
    // The derived text would be the documentation of [`RunArgs`], which is for programmers.
    Plain::command()
        .name(name)
        .bin_name(full_name.clone())
        .display_name(full_name)
        .version(version)
        .about(about)
        .long_about(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<RunArgs, ExitCode> {
        parse("dispatcher", "1.2.3", args.iter().map(OsString::from))
    }

    #[test]
    fn the_file_and_the_check_flag_are_read() {
        let args = parsed(&["push0-dispatcher", "--config", "a.toml", "--check-config"]);
        let args = args.expect("arguments are valid");
        assert_eq!(args.config, Some(PathBuf::from("a.toml")));
        assert!(args.check_config);
    }

    #[test]
    fn the_help_opens_with_the_service_and_its_pages() {
        let help = command("dispatcher", "1.2.3").render_long_help().to_string();
        assert!(help.starts_with("Runs the push0 service dispatcher."), "{help}");
        assert!(!help.contains("flatten"), "{help}");
    }

    #[test]
    fn an_unknown_flag_is_a_usage_error_and_version_is_not() {
        let code = |args| format!("{:?}", parsed(args).expect_err("parsing ends the process"));
        assert_eq!(
            code(&["x", "--nope"]),
            format!("{:?}", ExitCode::from(exit::CONFIG))
        );
        assert_eq!(code(&["x", "--version"]), format!("{:?}", ExitCode::SUCCESS));
    }
}
