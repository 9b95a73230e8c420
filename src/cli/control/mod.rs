//! Management verbs, spelt as rabbitmqctl spells them. They speak to a running node by the control
//! socket in its data directory, or with name and password over HTTP.

mod client;
mod output;
mod pair;
mod table;
mod trace;
mod verbs;

pub(super) use verbs::ControlVerb;

use crate::cli::complain;
use client::Client;
use output::Output;
use std::path::PathBuf;
use std::process::ExitCode;

// Which node, and how its answers are shown. Not a doc comment: clap would show it for each verb.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Common {
    /// The node's data directory, where its control socket is.
    #[arg(
        short = 'D',
        long,
        env = "UNDERSTUDY__BROKER__DATA_DIR",
        default_value = "./data",
        value_name = "DIR"
    )]
    data_dir: PathBuf,
    /// The node's HTTP listener instead, e.g. http://127.0.0.1:15672; needs --user.
    #[arg(long, value_name = "URL", requires = "as_user")]
    url: Option<String>,
    /// Who asks there.
    #[arg(id = "as_user", long = "user", value_name = "NAME")]
    user: Option<String>,
    /// The password of --user.
    #[arg(
        id = "as_password",
        long = "password",
        env = "UNDERSTUDY_PASSWORD",
        hide_env_values = true,
        default_value = ""
    )]
    password: String,
    /// No headline before the answer.
    #[arg(short, long)]
    quiet: bool,
    /// No headline and no names of columns.
    #[arg(short, long)]
    silent: bool,
    /// How lists are printed.
    #[arg(short, long, value_enum, default_value_t = output::Format::Table)]
    formatter: output::Format,
    /// Seconds to wait for the node.
    #[arg(short, long, default_value_t = 70, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

pub(super) fn run(verb: ControlVerb) -> ExitCode {
    let common = verb.common().clone();
    let output = Output {
        format: common.formatter,
        headline: !common.quiet && !common.silent,
        header: !common.silent,
    };
    let client = Client {
        data_dir: common.data_dir,
        url: common.url,
        user: common.user,
        password: common.password,
        timeout: std::time::Duration::from_secs(common.timeout),
    };
    match verb.run(&client, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            complain(&problem.text);
            ExitCode::from(problem.code)
        }
    }
}
