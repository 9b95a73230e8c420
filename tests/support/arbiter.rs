//! The process of `understudy arbiter`.

use super::eventually;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Returns once it listens. `settings`: KEY=VALUE, beyond its address and its user.
pub fn spawn(address: &str, data_dir: &Path, settings: &[String], log: Stdio) -> Child {
    let child = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .arg("arbiter")
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--set", &format!("listen.arbiter={address}")])
        .args(["--set", "arbiter.user=arbiter", "--set", "arbiter.password=third"])
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let listens = || std::net::TcpStream::connect(address).is_ok();
    eventually(listens, || "the arbiter does not listen".to_owned());
    child
}
