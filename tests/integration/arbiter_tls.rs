//! TLS between the nodes and `understudy arbiter`: who shows what to whom, and who is refused.

use crate::arbiter::{Arbiter, Etcd, section, wait_refused, wait_serving};
use crate::certificates::Tls;
use crate::support::stomp::Stomp;
use crate::support::{Node, Pair, eventually};
use std::path::Path;

fn tls_keys(mode: &str, ca_file: &Path) -> String {
    format!("tls = \"{mode}\"\ntls_ca_file = {ca_file:?}\n")
}

/// With the certificate `node.pem` of the directory, and its authority.
fn arbiter(mode: &str, directory: &Path) -> Arbiter {
    let file = |key: &str, name: &str| format!("{key}={}", directory.join(name).display());
    Arbiter::start_with(vec![
        format!("arbiter.tls={mode}"),
        file("arbiter.tls_ca_file", "ca.pem"),
        file("tls.certificate_file", "node.pem"),
        file("tls.key_file", "node.key"),
    ])
}

/// A master of its own with the files of `own`, that trusts `ca_file`.
fn stranger(own: &Path, arbiter: &Arbiter, keys: &str) -> Node {
    let mut node = Node::pair_master("stranger", own);
    Tls::make(own, &mut node);
    node.configure(&section(&arbiter.address));
    node.configure(keys);
    node.start();
    node
}

fn wait_log(arbiter: &Arbiter, wanted: &str) {
    eventually(
        || arbiter.log().contains(wanted),
        || format!("the arbiter never says {wanted:?}:\n{}", arbiter.log()),
    );
}

#[test]
fn an_arbiter_under_tls_decides_a_takeover() {
    for mode in ["server", "mutual"] {
        let mut pair = Pair::new("", "");
        let directory = pair.directory.path().to_owned();
        for node in [&mut pair.master, &mut pair.slave] {
            Tls::make(&directory, node);
        }
        let arbiter = arbiter(mode, &directory);
        for node in [&mut pair.master, &mut pair.slave] {
            node.configure(&section(&arbiter.address));
            node.configure(&tls_keys(mode, &directory.join("ca.pem")));
        }
        pair.start_in_sync();
        let bodies = || (0..100).map(|n| format!("m{n}"));
        Stomp::connect(&pair.master.ports.stomp).publish("/queue/q", bodies());
        pair.master.kill();
        wait_serving(&mut pair.slave);
        assert!(arbiter.log().matches("register written").count() > 2, "{}", arbiter.log());
        let got = Stomp::connect(&pair.slave.ports.stomp).consume("/queue/q", 100);
        assert!(got.into_iter().eq(bodies()), "{mode}");
    }
}

#[test]
fn who_shows_a_certificate_of_another_authority_is_refused_and_told_why() {
    let [trusted, foreign, third] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    Tls::make(trusted.path(), &mut Node::standalone(trusted.path()));
    let trusted_ca = trusted.path().join("ca.pem");
    let mutual = arbiter("mutual", trusted.path());
    // It trusts the arbiter, which does not trust it.
    let node = stranger(foreign.path(), &mutual, &tls_keys("mutual", &trusted_ca));
    wait_refused(&node, "the arbiter does not answer: received fatal alert");
    wait_log(&mutual, "connection dropped: invalid peer certificate");
    drop(node);
    // It does not trust the arbiter.
    let keys = tls_keys("server", &third.path().join("ca.pem"));
    let node = stranger(third.path(), &mutual, &keys);
    wait_refused(&node, "the arbiter does not answer: invalid peer certificate");
    drop(node);
    assert!(!mutual.log().contains("register written"), "{}", mutual.log());
}

#[test]
fn who_speaks_in_clear_to_an_arbiter_under_tls_is_refused() {
    let [trusted, own] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    Tls::make(trusted.path(), &mut Node::standalone(trusted.path()));
    let arbiter = arbiter("server", trusted.path());
    let node = stranger(own.path(), &arbiter, "");
    wait_refused(&node, "the arbiter does not answer");
    wait_log(&arbiter, "connection dropped: received corrupt message");
}

#[test]
fn an_etcd_that_asks_for_certificates_is_shown_the_nodes_own() {
    let directory = tempfile::tempdir().unwrap();
    Tls::make(directory.path(), &mut Node::standalone(directory.path()));
    let [ca, certificate, key] =
        ["ca.pem", "node.pem", "node.key"].map(|file| directory.path().join(file));
    let demands = ["--client-cert-auth", "--trusted-ca-file", ca.to_str().unwrap()];
    let Some(etcd) = Etcd::start_with(directory, &certificate, &key, &demands) else { return };
    let shows = |mode: &str| {
        format!(
            "[arbiter]\nkind = \"etcd\"\nuri = \"https://{}\"\n{}\
             [tls]\ncertificate_file = {certificate:?}\nkey_file = {key:?}\n",
            etcd.tls_address,
            tls_keys(mode, &ca)
        )
    };
    let mut pair = Pair::new("", "");
    for node in [&mut pair.master, &mut pair.slave] {
        node.configure(&shows("mutual"));
    }
    pair.start_in_sync();
    assert_eq!(pair.master.status().unwrap()["arbiter"], "answers");
    pair.master.terminate();
    wait_serving(&mut pair.slave);
    let mut stranger = Pair::new("", "");
    stranger.master.configure(&shows("off"));
    stranger.master.start();
    wait_refused(&stranger.master, "the arbiter does not answer");
}
