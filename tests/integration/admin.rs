//! What other programs rely on: status, health, ready file, check-config.

use crate::support::{Node, Ports};
use std::process::Command;

fn understudy(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_understudy")).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn status_and_health_of_a_standalone_node() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    assert_eq!(node.ready(), 200);
    let (code, said) = understudy(&["status", "--url", &node.url()]);
    assert_eq!(code, Some(0), "{said}");
    for expected in ["role", "master", "standalone", &node.ports.amqp] {
        assert!(said.contains(expected), "{said}");
    }
    let (_, json) = understudy(&["status", "--json", "--url", &node.url()]);
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status["listeners"]["stomp"], node.ports.stomp.as_str());
    let url = format!("http://{}", Ports::free().http);
    let (code, said) = understudy(&["status", "--url", &url]);
    assert_eq!(code, Some(69), "{said}");
}

#[test]
fn wrong_settings_stop_the_start_and_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.toml");
    std::fs::write(&file, "[listen]\namqpp = \"127.0.0.1:1\"\n").unwrap();
    let file = file.to_str().unwrap();
    for verb in ["check-config", "serve"] {
        let (code, said) = understudy(&[verb, "--config", file]);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("amqpp") && said.contains("wrong.toml"), "{said}");
    }
    let (code, said) = understudy(&["check-config", "--config", "conf/master.toml"]);
    assert_eq!(code, Some(0), "{said}");
    let none = directory.path().join("none.pem").display().to_string();
    let listener = "listen.amqp_tls=127.0.0.1:0";
    let (certificate, key) =
        (format!("tls.certificate_file={none}"), format!("tls.key_file={none}"));
    for verb in ["check-config", "serve"] {
        let (code, said) =
            understudy(&[verb, "--set", listener, "--set", &certificate, "--set", &key]);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("tls.certificate_file") && said.contains("none.pem"), "{said}");
    }
}

#[test]
fn the_ready_file_tells_the_real_ports() {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready.json");
    let mut child = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["serve", "--ready-file"])
        .arg(&ready)
        .arg("--data-dir")
        .arg(directory.path().join("data"))
        .args(["--set", "listen.amqp=127.0.0.1:0", "--set", "listen.stomp=127.0.0.1:0"])
        .args(["--set", "listen.native=", "--set", "listen.http=127.0.0.1:0"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let until = std::time::Instant::now() + crate::support::PATIENCE;
    let listeners: serde_json::Value = loop {
        let text = std::fs::read_to_string(&ready).unwrap_or_default();
        match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(found) if found["amqp"].is_string() && found["stomp"].is_string() => break found,
            _ => assert!(std::time::Instant::now() < until, "{text}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    let stomp = listeners["stomp"].as_str().unwrap();
    assert!(!stomp.ends_with(":0"));
    crate::support::stomp::Stomp::connect(stomp);
    assert!(listeners["native"].is_null());
    child.kill().unwrap();
    child.wait().unwrap();
}
