//! What leads clients to the node that serves: hook commands, and HAProxy with the shipped file.

use crate::support::haproxy::HaProxy;
use crate::support::stomp::Stomp;
use crate::support::{Node, Pair, Ports, eventually};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn wait(what: &str, holds: impl Fn() -> bool) {
    eventually(holds, || format!("waited in vain: {what}"));
}

/// Hooks that write one line each: event, what the environment says, and whether STOMP is open.
fn with_hooks(pair: &mut Pair) -> [PathBuf; 2] {
    let directory = pair.directory.path().to_owned();
    [&mut pair.master, &mut pair.slave].map(|node| {
        let lines = directory.join(format!("{}.hooks", node.name));
        let (host, port) = node.ports.stomp.split_once(':').unwrap();
        let line = |event: &str| {
            format!(
                "if bash -c '</dev/tcp/{host}/{port}' 2>/dev/null; then o=open; else o=closed; fi; \
                 echo {event} $UNDERSTUDY_ROLE $UNDERSTUDY_NODE $UNDERSTUDY_EPOCH $o >> {}",
                lines.display()
            )
        };
        let (promoted, demoted) = (line("promoted"), line("demoted"));
        node.configure(&format!("[hooks]\non_promoted = {promoted:?}\non_demoted = {demoted:?}\n"));
        lines
    })
}

/// From the first promotion on: the demotion of a start is cut short if the promotion comes at once.
fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let promoted = |line: &&str| !line.starts_with("promoted");
    text.lines().skip_while(promoted).map(str::to_owned).collect()
}

#[test]
fn hooks_tell_who_is_reached_in_order_with_open_and_with_closed_doors() {
    let mut pair = Pair::new("", "");
    let [at_master, at_slave] = with_hooks(&mut pair);
    pair.start_in_sync();
    wait("promoted", || lines(&at_master).len() == 1);
    assert_eq!(lines(&at_master)[0], "promoted master master 1 open");
    let at_start = || std::fs::read_to_string(&at_slave).unwrap_or_default();
    wait("demoted at the start", || at_start().ends_with(" closed\n"));
    assert!(at_start().starts_with("demoted slave slave "), "{}", at_start());
    let done = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["switchover", "--data-dir"])
        .arg(pair.directory.path().join("master"))
        .status()
        .unwrap();
    assert!(done.success());
    wait("swapped", || lines(&at_master).len() == 2 && lines(&at_slave).len() == 1);
    let demoted = &lines(&at_master)[1];
    assert!(
        demoted.starts_with("demoted slave master ") && demoted.ends_with(" closed"),
        "{demoted}"
    );
    assert_eq!(lines(&at_slave)[0], "promoted master slave 2 open");
    // A master that stops gives its address up before its process ends.
    pair.master.wait_in_sync();
    assert!(pair.slave.terminate().success());
    let last = lines(&at_slave).pop().unwrap();
    assert!(last.starts_with("demoted slave slave ") && last.ends_with(" closed"), "{last}");
    wait("promoted again", || lines(&at_master).len() == 3);
    assert_eq!(lines(&at_master)[2], "promoted master master 3 open");
}

#[test]
fn a_hook_that_hangs_or_fails_holds_up_no_takeover_and_is_killed() {
    let mut pair = Pair::new("", "");
    let pid = pair.directory.path().join("pid");
    let hangs = format!("echo on its way; sleep 600 & echo $! > {}; wait", pid.display());
    pair.slave.configure(&format!(
        "[hooks]\non_promoted = {hangs:?}\non_demoted = \"exit 3\"\ntimeout_ms = 500\n"
    ));
    pair.start_in_sync();
    Stomp::connect(&pair.master.ports.stomp).publish("/queue/q", ["one".to_owned()]);
    pair.master.kill();
    let killed = Instant::now();
    pair.slave.wait("serving", |status| status["serving"] == true);
    let bodies = Stomp::connect(&pair.slave.ports.stomp).consume("/queue/q", 1);
    assert_eq!(bodies, ["one"]);
    assert!(killed.elapsed() < Duration::from_secs(3), "{:?}", killed.elapsed());
    wait("the limit", || pair.slave.log().contains("not done in hooks.timeout_ms"));
    let log = pair.slave.log();
    assert!(log.contains("on its way") && log.contains("exit status: 3"), "{log}");
    let process = std::fs::read_to_string(&pid).unwrap();
    let process = Path::new("/proc").join(process.trim());
    let is_gone = || {
        let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
        status.is_empty() || status.contains("State:\tZ")
    };
    wait("what the command had started is gone", is_gone);
}

fn speaks_amqp(address: &str) -> bool {
    let greeted = || {
        let mut socket = TcpStream::connect(address).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        socket.write_all(b"AMQP\0\0\x09\x01").ok()?;
        let mut start = [0; 11];
        socket.read_exact(&mut start).ok()?;
        // A method frame on channel 0: connection.start.
        Some(start[0] == 1 && start[7..] == [0, 10, 0, 10])
    };
    greeted().unwrap_or(false)
}

/// A client behind the proxy, which connects again until it is let in.
fn connected(address: &str) -> Stomp {
    let mut client = None;
    let connects = || {
        client = Stomp::try_connect(address);
        client.is_some()
    };
    eventually(connects, || "nobody behind the proxy lets a client in".to_owned());
    client.unwrap()
}

#[test]
fn haproxy_leads_clients_to_the_node_that_serves() {
    if Command::new("haproxy").arg("-v").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED haproxy: install Debian's haproxy");
        return;
    }
    let mut pair = Pair::in_sync();
    let own = Ports::free();
    let _proxy = HaProxy::in_front_of(&pair, &own);
    connected(&own.stomp).publish("/queue/q", (0..100).map(|n| n.to_string()));
    wait("AMQP", || speaks_amqp(&own.amqp));
    // A takeover, the way back by a switchover, and again a takeover.
    let mut published = 100;
    for _ in 0..2 {
        pair.master.kill();
        let killed = Instant::now();
        let mut stomp = connected(&own.stomp);
        stomp.publish("/queue/q", (published..published + 100).map(|n| n.to_string()));
        eprintln!("confirmed behind haproxy {:?} after the SIGKILL", killed.elapsed());
        published += 100;
        pair.master.start();
        pair.master.wait_in_sync();
        pair.slave.wait_in_sync();
        let Pair { master, slave, .. } = &mut pair;
        std::mem::swap::<Node>(master, slave);
    }
    let mut bodies = connected(&own.stomp).consume("/queue/q", published);
    bodies.sort_by_key(|body| body.parse::<usize>().unwrap());
    assert!(bodies.into_iter().eq((0..published).map(|n| n.to_string())));
}
