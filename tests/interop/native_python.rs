//! The Python client of the native protocol: needs no package.

use crate::certificates::Tls;
use crate::support::{Node, Pair, Ports};
use crate::{arguments, is_installed, limited, run_quietly, run_suite, script, skipped};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// To where a master is that says it, at once. The machine may be busy with other tests.
const SWITCHOVER_WAIT_S_MAX: f64 = 1.0;

/// None without Python.
fn suite(test: &str, file: &str) -> Option<Command> {
    if !is_installed("python3") {
        skipped(test, "python3");
        return None;
    }
    let mut suite = Command::new("python3");
    suite
        .env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python"))
        .arg(script(file));
    Some(suite)
}

#[test]
fn native_python() {
    let Some(mut suite) = suite("native_python", "native_suite.py") else { return };
    let mut pair = Pair::in_sync();
    suite.args(arguments(&pair, |ports| &ports.native));
    run_suite(suite, &mut pair);
}

/// With and without a certificate of its own; a wrong login, and a broker that is not to be trusted.
#[test]
fn native_python_tls() {
    let Some(mut suite) = suite("native_python_tls", "native_tls_suite.py") else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    let tls = Tls::make(directory.path(), &mut node);
    node.start_serving();
    run_quietly(suite.arg(&tls.native_port).args(&tls.client_files));
}

#[test]
fn native_python_follows_a_switchover() {
    let Some(mut suite) = suite("native_python_switchover", "native_switchover.py") else { return };
    let pair = Pair::in_sync();
    suite.arg(Ports::port(&pair.master.ports.native).to_string());
    follows_a_switchover(&pair, &suite);
}

/// A pair that is not started yet. The files of the second node are those of both.
fn under_tls() -> (Pair, [Tls; 2]) {
    let mut pair = Pair::new("", "");
    let directory = pair.directory.path().to_owned();
    let tls = [&mut pair.master, &mut pair.slave].map(|node| Tls::make(&directory, node));
    (pair, tls)
}

#[test]
fn native_python_follows_a_switchover_under_tls() {
    let Some(mut suite) = suite("native_python_switchover", "native_switchover.py") else { return };
    let (mut pair, [one, two]) = under_tls();
    pair.start_in_sync();
    suite.arg(&one.native_port).arg(&two.client_files[0]);
    follows_a_switchover(&pair, &suite);
}

/// The certificates are for a name, and the master tells an address: it goes on with its list.
#[test]
fn native_python_is_not_kept_by_a_place_that_no_certificate_is_for() {
    let Some(mut suite) = suite("native_python_switchover", "native_switchover.py") else { return };
    let (mut pair, [one, two]) = under_tls();
    two.sign_for("node", "both", &["localhost"]);
    pair.start_in_sync();
    suite.arg(format!("{},{}", one.native_port, two.native_port)).arg(&two.client_files[0]);
    follows_a_switchover(&pair, &suite);
}

/// It goes along to the other node at once: nothing lost, nothing stored twice.
fn follows_a_switchover(pair: &Pair, suite: &Command) {
    let mut child = limited(suite).stdout(Stdio::piped()).spawn().unwrap();
    let mut counted = serde_json::Value::Null;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "SWITCHOVER" {
            let mut switchover = Command::new(env!("CARGO_BIN_EXE_understudy"));
            run_quietly(switchover.args(["switchover", "--data-dir"]).arg(pair.master.data_dir()));
        } else {
            println!("{line}");
            counted = serde_json::from_str(&line).unwrap();
        }
    }
    assert!(child.wait().unwrap().success(), "{suite:?} failed");
    assert_eq!(counted["lost"], serde_json::json!([]), "{counted}");
    assert_eq!(counted["duplicates"], 0, "{counted}");
    assert!(counted["longest_wait_s"].as_f64().unwrap() < SWITCHOVER_WAIT_S_MAX, "{counted}");
}
