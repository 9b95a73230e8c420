//! A node that belonged elsewhere becomes a new one, by the operator's explicit word.

use crate::config::{self, BackendKind, Flags, Role};
use anyhow::{Context, bail};
use std::path::Path;
use std::process::ExitCode;
use understudy_storage::DataDirLock;

/// What a node keeps in its data directory for itself; what was set aside and the lock stay.
const OWN: [&str; 2] = ["log", "state"];

#[derive(clap::Args)]
pub(super) struct JoinArguments {
    /// Delete what the data directory holds: messages, state, and the membership of a cluster.
    #[arg(long)]
    discard_local_data: bool,
    #[command(flatten)]
    flags: Flags,
}

/// # Errors
/// The settings are wrong or not a slave's, the node runs, or there is data and no word to delete it.
#[expect(clippy::print_stdout, reason = "the answer to the question")]
pub(super) fn run(arguments: &JoinArguments) -> anyhow::Result<ExitCode> {
    let settings = config::load(&arguments.flags, std::env::vars())?;
    if settings.replication.backend != BackendKind::Pair || settings.role != Role::Slave {
        bail!(
            "joining is for a slave: [broker] role = \"slave\", [replication] backend = \"pair\""
        );
    }
    let dir = &settings.data_dir;
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let _lock = DataDirLock::acquire(dir)?;
    let held: Vec<_> = OWN.into_iter().filter(|name| dir.join(name).exists()).collect();
    if !held.is_empty() && !arguments.discard_local_data {
        bail!("{} holds data; --discard-local-data deletes it", dir.display());
    }
    for name in held {
        remove(&dir.join(name))?;
    }
    println!("{} is empty: start it, and it takes a whole copy of its master", dir.display());
    Ok(ExitCode::SUCCESS)
}

fn remove(path: &Path) -> anyhow::Result<()> {
    std::fs::remove_dir_all(path).with_context(|| path.display().to_string())
}
