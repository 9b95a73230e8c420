//! STOMP over WebSocket: the opening handshake, in clear and under TLS, and what breaks it.

use crate::certificates::Tls;
use crate::support::{Node, Ports};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Follows from the key (RFC 6455 section 1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn request(path: &str, subprotocols: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {subprotocols}\r\n\r\n"
    )
}

/// A text message as a client sends it, masked with zeros.
fn text(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

fn read_until(stream: &mut impl Read, wanted: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(wanted) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => seen.extend(&buffer[..read]),
        }
    }
    String::from_utf8_lossy(&seen).to_lowercase()
}

fn started() -> (tempfile::TempDir, Node, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    Tls::make(directory.path(), &mut node);
    let (clear, tls) = (Ports::free().stomp, Ports::free().stomp);
    node.listen(&format!("stomp_ws = \"{clear}\"\nstomp_wss = \"{tls}\"\n"));
    node.start_serving();
    (directory, node, clear, tls)
}

fn connect(address: &str) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}

#[test]
fn the_handshake_chooses_a_subprotocol_and_refuses_other_paths() {
    let (_directory, _node, address, _) = started();
    for (path, offered, status, chosen) in [
        ("/ws", "v10.stomp, v11.stomp", "101", "sec-websocket-protocol: v11.stomp\r\n"),
        ("/ws/", "v12.stomp", "101", "sec-websocket-protocol: v12.stomp\r\n"),
        ("/stomp", "v12.stomp", "101", "sec-websocket-protocol: v12.stomp\r\n"),
        ("/ws", "mqtt", "101", ""),
        ("/other", "v12.stomp", "404", ""),
    ] {
        let mut socket = connect(&address);
        socket.write_all(request(path, offered).as_bytes()).unwrap();
        let said = read_until(&mut socket, "\r\n\r\n");
        assert!(said.starts_with(&format!("http/1.1 {status}")), "{path}: {said}");
        assert!(said.contains(chosen), "{said}");
        assert_eq!(said.contains("sec-websocket-protocol"), !chosen.is_empty(), "{said}");
        assert_eq!(said.contains(&ACCEPT.to_lowercase()), status == "101", "{said}");
    }
}

#[test]
fn frames_of_stomp_travel_in_messages_under_tls_too() {
    let (directory, _node, clear, tls) = started();
    let frame = "CONNECT\naccept-version:1.2\nlogin:guest\npasscode:guest\nhost:/\n\n\0";
    let (head, rest) = frame.split_at(20);
    let mut streams: Vec<Box<dyn ReadWrite>> = vec![Box::new(connect(&clear))];
    streams.push(Box::new(crate::tls::under_tls(directory.path(), connect(&tls))));
    for stream in &mut streams {
        stream.write_all(request("/ws", "v12.stomp").as_bytes()).unwrap();
        read_until(stream, "\r\n\r\n");
        stream.write_all(&text(head)).unwrap();
        stream.write_all(&text(rest)).unwrap();
        let said = read_until(stream, "\0");
        assert!(said.contains("connected\n") && said.contains("version:1.2"), "{said}");
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn what_breaks_the_rules_is_closed_and_hurts_nobody() {
    let (_directory, _node, address, _) = started();
    let open = request("/ws", "v12.stomp");
    let huge = [&[0x82, 0xFF][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    for bytes in [
        b"CONNECT\naccept-version:1.2\n\n\0".to_vec(),
        b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![b'x'; 100_000],
        [open.as_bytes(), b"\x81\x05hello"].concat(),
        [open.as_bytes(), &huge[..]].concat(),
        [open.as_bytes(), b"\x81\x82\0\0\0\0\xC3\x28"].concat(),
    ] {
        let mut socket = connect(&address);
        // The node may close in the middle of it.
        let _ = socket.write_all(&bytes);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(!String::from_utf8_lossy(&rest).contains("CONNECTED"));
    }
    let mut socket = connect(&address);
    socket.write_all(open.as_bytes()).unwrap();
    assert!(read_until(&mut socket, "\r\n\r\n").starts_with("http/1.1 101"));
}
