//! TLS on the client ports: certificates, logins by certificate, reload on SIGHUP, garbage.

use crate::certificates::{CLIENT, Tls};
use crate::support::stomp::Stomp;
use crate::support::{Node, Pair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

fn client(tls: &Tls, with_certificate: bool) -> ClientConfig {
    config(&tls.client_files, with_certificate)
}

fn config([ca, certificate, key]: &[PathBuf; 3], with_certificate: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    if !with_certificate {
        return builder.with_no_client_auth();
    }
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
}

fn connect(config: ClientConfig, port: &str) -> Stream {
    let socket = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    over(config, socket)
}

fn over(config: ClientConfig, socket: TcpStream) -> Stream {
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

/// A connection of a client that trusts the authority of that directory.
pub(crate) fn under_tls(directory: &Path, socket: TcpStream) -> Stream {
    let files = ["ca.pem", "client.pem", "client.key"].map(|file| directory.join(file));
    over(config(&files, false), socket)
}

/// What the other side sends until that is in it, or it ends.
fn read_until(stream: &mut Stream, wanted: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(wanted) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => seen.extend(&buffer[..read]),
        }
    }
    String::from_utf8_lossy(&seen).into_owned()
}

fn amqp_start(stream: &mut Stream) -> String {
    stream.write_all(b"AMQP\0\0\x09\x01").unwrap();
    read_until(stream, "en_US")
}

fn started() -> (tempfile::TempDir, Node, Tls) {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    let tls = Tls::make(directory.path(), &mut node);
    node.start_serving();
    (directory, node, tls)
}

#[test]
fn external_is_offered_to_who_shows_a_certificate() {
    let (_directory, _node, tls) = started();
    let start = amqp_start(&mut connect(client(&tls, false), &tls.amqp_port));
    assert!(start.contains("PLAIN AMQPLAIN") && !start.contains("EXTERNAL"), "{start}");
    let start = amqp_start(&mut connect(client(&tls, true), &tls.amqp_port));
    assert!(start.contains("EXTERNAL PLAIN AMQPLAIN"), "{start}");
}

#[test]
fn stomp_logs_in_by_certificate() {
    let (_directory, _node, tls) = started();
    let frame = b"CONNECT\naccept-version:1.2\nhost:/\n\n\0";
    let mut stream = connect(client(&tls, true), &tls.stomp_port);
    stream.write_all(frame).unwrap();
    let said = read_until(&mut stream, "\0");
    assert!(said.starts_with("CONNECTED") && !said.contains("ERROR"), "{CLIENT}: {said}");
    let mut stream = connect(client(&tls, false), &tls.stomp_port);
    stream.write_all(frame).unwrap();
    let said = read_until(&mut stream, "\0");
    assert!(said.starts_with("ERROR") && said.contains("passcode"), "{said}");
}

#[test]
fn sighup_changes_the_certificate_of_new_connections_only() {
    let (directory, mut node, tls) = started();
    let shown = |stream: &Stream| stream.conn.peer_certificates().unwrap()[0].clone();
    let mut before = connect(client(&tls, false), &tls.amqp_port);
    amqp_start(&mut before);
    std::fs::write(directory.path().join("node.key"), "nonsense").unwrap();
    hang_up(&mut node, "the certificate of before stays");
    let mut still = connect(client(&tls, false), &tls.amqp_port);
    amqp_start(&mut still);
    assert_eq!(shown(&still), shown(&before));
    tls.sign("node", "renewed");
    hang_up(&mut node, "new connections get the certificate of now");
    let mut after = connect(client(&tls, false), &tls.amqp_port);
    amqp_start(&mut after);
    assert_ne!(shown(&after), shown(&before));
    // The old connection lives on: it is answered, with a fault, to a frame of the wrong kind.
    before.write_all(b"\x09\0\0\0\0\0\0\xce").unwrap();
    before.flush().unwrap();
    assert!(before.read(&mut [0; 16]).is_ok());
}

/// SIGHUP, and what the node says about it.
fn hang_up(node: &mut Node, wanted: &str) {
    let pid = node.pid().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    node.wait_log(wanted);
    assert!(node.is_running(), "ended at SIGHUP:\n{}", node.log());
}

#[test]
fn what_is_not_tls_is_turned_away_and_hurts_nobody() {
    let (_directory, _node, tls) = started();
    for garbage in [&b"AMQP\0\0\x09\x01"[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1, 255, 255]] {
        let port: u16 = tls.amqp_port.parse().unwrap();
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket.write_all(garbage).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"AMQP") && rest.len() < 64, "{rest:?}");
    }
    assert!(amqp_start(&mut connect(client(&tls, false), &tls.amqp_port)).contains("PLAIN"));
}

#[test]
fn a_wrong_file_keeps_the_node_from_starting_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    Tls::make(directory.path(), &mut node);
    std::fs::write(directory.path().join("node.pem"), "").unwrap();
    node.start();
    assert!(!node.wait_exit().success());
    assert!(node.log().contains("tls.certificate_file") && node.log().contains("node.pem"));
}

#[test]
fn a_pair_over_mutual_tls_replicates_takes_over_and_refuses_a_node_in_clear() {
    let link = |directory: &Path| {
        let ca_file = directory.join("ca.pem");
        format!("tls = \"mutual\"\ntls_ca_file = {ca_file:?}\n")
    };
    let mut pair = Pair::new("", "");
    let keys = link(pair.directory.path());
    for node in [&mut pair.master, &mut pair.slave] {
        // The listeners under TLS are not what is shown here, the files are.
        Tls::make(pair.directory.path(), node);
        node.replication(&keys);
    }
    pair.start_in_sync();
    let bodies = || (0..100).map(|n| format!("m{n}"));
    Stomp::connect(&pair.master.ports.stomp).publish("/queue/q", bodies());
    let mut stranger = pair.third("user = \"pair\"\npassword = \"secret\"\n");
    stranger.start();
    pair.master.wait_log("replication link refused");
    assert_eq!(pair.master.status().unwrap()["state"], "in-sync");
    pair.master.kill();
    pair.slave.wait("serving", |status| status["serving"] == true);
    let got = Stomp::connect(&pair.slave.ports.stomp).consume("/queue/q", 100);
    assert!(got.into_iter().eq(bodies()));
}
