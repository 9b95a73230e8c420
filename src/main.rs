//! Arguments → settings → run → exit code; nothing else.

use clap::Parser;

fn main() -> std::process::ExitCode {
    understudy::cli::Cli::parse().run()
}
