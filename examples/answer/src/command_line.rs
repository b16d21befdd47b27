//! Common parts of every program's command line: its name, a version with the commit, and shell
//! completions.

use std::ffi::OsString;
use std::io;
use std::process::exit;

use clap::{ArgMatches, Command, Parser, ValueEnum as _};
use clap_complete::Shell;

/// The version, with the commit if the program was built in a checkout.
pub const VERSION: &str = env!("VISPEC_VERSION");

/// The flag that prints completions; recognised only as the first argument.
const COMPLETIONS: &str = "--completions";

/// Parses the command line of the program `name`. Exits if it is invalid or requests help, the
/// version or completions.
#[must_use]
pub fn parse<F: Parser>(name: &'static str) -> F {
    let matches = matches::<F>(name);
    F::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Like [`parse`], but returns the raw matches.
#[must_use]
pub fn matches<F: Parser>(name: &'static str) -> ArgMatches {
    let mut command = command::<F>(name);
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == COMPLETIONS) {
        let shell = arguments.get(2).and_then(|shell| shell.to_str());
        match shell.and_then(|shell| Shell::from_str(shell, true).ok()) {
            Some(shell) => {
                clap_complete::generate(shell, &mut command, name, &mut io::stdout());
                exit(0);
            }
            None => command
                .error(
                    clap::error::ErrorKind::InvalidValue,
                    format!("{COMPLETIONS} needs the name of a shell: bash, elvish, fish, powershell or zsh"),
                )
                .exit(),
        }
    }
    command.get_matches_from(arguments)
}

fn command<F: Parser>(name: &'static str) -> Command {
    F::command().name(name).version(VERSION).after_help(format!(
        "{name} {COMPLETIONS} SHELL prints completions for bash, elvish, fish, powershell or zsh"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program
    #[derive(Parser, Debug)]
    struct Flags {
        /// A number
        #[arg(long)]
        number: u32,
    }

    #[test]
    fn programs_have_their_name_and_their_completions() {
        let mut command = command::<Flags>("mine");
        assert!(command.render_version().starts_with("mine 0."));
        assert!(
            command
                .render_long_help()
                .to_string()
                .contains("mine --completions SHELL")
        );
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut command, "mine", &mut script);
        assert!(String::from_utf8(script).unwrap().contains("--number"));
    }
}
