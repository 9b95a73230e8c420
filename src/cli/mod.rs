//! The command line: one file a verb.

mod bench;
mod consume;
mod control;
mod demo;
mod exit;
mod join;
mod publish;
pub mod status;

pub(crate) use exit::EXIT_SOFTWARE;

use crate::config::{self, Flags, Settings};
use crate::server;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use exit::{EXIT_CONFIG, EXIT_DATA, EXIT_UNAVAILABLE, EXIT_USAGE};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// A message broker that runs as a safe pair on two machines.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a node.
    Serve {
        #[command(flatten)]
        flags: Flags,
        /// File to write the open listeners' addresses to, as JSON.
        #[arg(long, value_name = "FILE")]
        ready_file: Option<PathBuf>,
    },
    /// Run the arbiter: a third voice that decides which node of a pair leads.
    Arbiter {
        #[command(flatten)]
        flags: Flags,
    },
    /// Check settings as `serve` would, without starting.
    CheckConfig {
        #[command(flatten)]
        flags: Flags,
    },
    /// Make this data directory a new slave's, which takes a whole copy of its master.
    Join(join::JoinArguments),
    /// Show a node's role, state, cursors, listeners and counts.
    Status(status::StatusArguments),
    /// See a takeover: a pair of processes, clients of three protocols, a SIGKILL.
    Demo(demo::DemoArguments),
    /// Publish messages from arguments or standard input.
    Publish(publish::PublishArguments),
    /// Print messages of a queue.
    Consume(consume::ConsumeArguments),
    /// Put a load on a broker, ours or another, and measure it.
    Bench(Box<bench::BenchArguments>),
    #[command(flatten)]
    Control(control::ControlVerb),
}

/// The program: arguments in, exit code out.
pub fn main() -> ExitCode {
    match parse() {
        Ok(cli) => cli.run(),
        Err(error) => {
            let _ = error.print();
            // Help and version are answers, the rest are mistakes.
            if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
        }
    }
}

/// Each verb is understood with dashes and with underscores.
fn parse() -> Result<Cli, clap::Error> {
    let both = |verb: clap::Command| {
        let name = verb.get_name().to_owned();
        let other =
            if name.contains('_') { name.replace('_', "-") } else { name.replace('-', "_") };
        if other == name { verb } else { verb.alias(other) }
    };
    Cli::from_arg_matches(&Cli::command().mut_subcommands(both).try_get_matches()?)
}

impl Cli {
    fn run(self) -> ExitCode {
        match self.verb {
            Verb::Serve { flags, ready_file } => serve(&flags, ready_file),
            Verb::Arbiter { flags } => arbiter(&flags),
            Verb::CheckConfig { flags } => check_config(&flags),
            Verb::Join(arguments) => finish(join::run(&arguments), EXIT_DATA),
            Verb::Status(arguments) => finish(status::run(&arguments), EXIT_UNAVAILABLE),
            Verb::Demo(arguments) => finish(demo::run(&arguments), EXIT_SOFTWARE),
            Verb::Publish(arguments) => {
                start_client_logging();
                finish_client(publish::run(arguments))
            }
            Verb::Bench(arguments) => finish(bench::run(&arguments), EXIT_UNAVAILABLE),
            Verb::Control(verb) => control::run(verb),
            Verb::Consume(arguments) => {
                start_client_logging();
                finish_client(consume::run(arguments))
            }
        }
    }
}

fn finish(result: anyhow::Result<ExitCode>, failure: u8) -> ExitCode {
    result.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::from(failure)
    })
}

fn finish_client(result: anyhow::Result<ExitCode>) -> ExitCode {
    let failure = result.as_ref().err().map_or(EXIT_SOFTWARE, exit::of_client);
    finish(result, failure)
}

fn load(flags: &Flags) -> Result<Settings, ExitCode> {
    let wrong = |why: String| {
        complain(&why);
        ExitCode::from(EXIT_CONFIG)
    };
    let settings = config::load(flags, std::env::vars()).map_err(|why| wrong(why.to_string()))?;
    server::check_certificates(&settings).map_err(|why| wrong(format!("{why:#}")))?;
    Ok(settings)
}

fn serve(flags: &Flags, ready_file: Option<PathBuf>) -> ExitCode {
    let settings = match load(flags) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    start_logging(&settings);
    match server::run(settings, ready_file.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(EXIT_SOFTWARE)
        }
    }
}

fn arbiter(flags: &Flags) -> ExitCode {
    let settings = match load(flags) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    if settings.listen.arbiter.is_none() {
        complain("listen.arbiter: needs an address, as in conf/arbiter.toml");
        return ExitCode::from(EXIT_CONFIG);
    }
    start_logging(&settings);
    match crate::arbiter::run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(EXIT_SOFTWARE)
        }
    }
}

#[expect(clippy::print_stdout, reason = "the answer to the question")]
fn check_config(flags: &Flags) -> ExitCode {
    match load(flags) {
        Ok(settings) => {
            println!(
                "the settings are right: {} in {}",
                settings.name,
                settings.data_dir.display()
            );
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

fn start_logging(settings: &Settings) {
    let filter = tracing_subscriber::EnvFilter::new(&settings.log_level);
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if settings.log_json {
        logs.json().init();
    } else {
        logs.init();
    }
}

/// What the client library warns of, such as an unknown option in an address.
fn start_client_logging() {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

#[expect(clippy::print_stderr, reason = "errors go to standard error, data to standard output")]
fn complain(text: &str) {
    eprintln!("understudy: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options_without_help(command: &clap::Command) -> Vec<String> {
        let options = command.get_arguments().filter(|argument| !argument.is_positional());
        let silent = options.filter(|option| option.get_help().is_none());
        let named = silent.map(|option| format!("{} {}", command.get_name(), option.get_id()));
        named.chain(command.get_subcommands().flat_map(options_without_help)).collect()
    }

    #[test]
    fn every_option_of_every_verb_has_a_help_text() {
        assert_eq!(options_without_help(&Cli::command()), [""; 0]);
    }
}
