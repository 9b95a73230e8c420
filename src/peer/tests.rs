use super::{PeerEvent, PeerHandle, Security};
use crate::config::{LinkTls, TlsSettings};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

async fn node(password: &str) -> (PeerHandle, String, mpsc::UnboundedReceiver<PeerEvent>) {
    secured(password, Security::clear()).await
}

async fn secured(
    password: &str,
    security: Security,
) -> (PeerHandle, String, mpsc::UnboundedReceiver<PeerEvent>) {
    let (sender, events) = mpsc::unbounded_channel();
    let tell = move |event| {
        let _ = sender.send(event);
        false
    };
    let started = PeerHandle::start("127.0.0.1:0", "pair", password, security, tell);
    let (handle, address) = started.await.unwrap();
    (handle, address.to_string(), events)
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order_and_a_hang_up_is_noticed() {
    let (one, _, mut one_events) = node("secret").await;
    let (two, address, mut two_events) = node("secret").await;
    one.dial(&address);
    let Some(PeerEvent::Linked { link, dialed: true }) = one_events.recv().await else {
        panic!("not linked")
    };
    let Some(PeerEvent::Linked { dialed: false, .. }) = two_events.recv().await else {
        panic!("not linked")
    };
    let big = Bytes::from(vec![7; 1 << 20]);
    one.send(link, vec![Bytes::from_static(b"head"), big.clone()]);
    one.send(link, vec![]);
    one.send(link, vec![Bytes::from_static(b"last")]);
    for expected in [4 + big.len(), 0, 4] {
        let Some(PeerEvent::Received { frame, .. }) = two_events.recv().await else {
            panic!("no frame")
        };
        assert_eq!(frame.len(), expected);
    }
    one.hang_up(link);
    assert!(matches!(two_events.recv().await, Some(PeerEvent::Lost { .. })));
    drop(two);
}

#[tokio::test]
async fn a_wrong_password_makes_no_link_on_either_side() {
    let (one, _, mut one_events) = node("secret").await;
    let (_two, address, mut two_events) = node("other").await;
    one.dial(&address);
    assert!(matches!(one_events.recv().await, Some(PeerEvent::DialFailed { refused: false })));
    assert!(two_events.try_recv().is_err());
}

#[tokio::test]
async fn a_closed_port_is_told_as_refused() {
    let (one, _, mut events) = node("secret").await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    one.dial(&free.to_string());
    assert!(matches!(events.recv().await, Some(PeerEvent::DialFailed { refused: true })));
}

#[tokio::test]
async fn a_stranger_does_not_disturb_a_link() {
    let (one, _, mut one_events) = node("secret").await;
    let (two, address, mut two_events) = node("secret").await;
    let (stranger, _, mut stranger_events) = node("guess").await;
    one.dial(&address);
    assert!(matches!(one_events.recv().await, Some(PeerEvent::Linked { .. })));
    let Some(PeerEvent::Linked { link, .. }) = two_events.recv().await else {
        panic!("not linked")
    };
    stranger.dial(&address);
    let failed = stranger_events.recv().await;
    assert!(matches!(failed, Some(PeerEvent::DialFailed { refused: false })));
    two.send(link, vec![Bytes::from_static(b"still here")]);
    let Some(PeerEvent::Received { frame, .. }) = one_events.recv().await else {
        panic!("the link is gone")
    };
    assert_eq!(frame, "still here");
    assert!(two_events.try_recv().is_err());
}

#[tokio::test]
async fn the_acceptor_proves_nothing_to_a_stranger_and_closes_on_a_foreign_protocol() {
    let (_node, address, mut events) = node("secret").await;
    let mut stranger = TcpStream::connect(&address).await.unwrap();
    let mut greeting = b"UNDRPAIR\0\x01".to_vec();
    greeting.extend([0; 32]);
    stranger.write_all(&greeting).await.unwrap();
    stranger.write_all(&[0; 32]).await.unwrap();
    let mut answer = Vec::new();
    stranger.read_to_end(&mut answer).await.unwrap();
    // Its greeting and its verdict, but no proof.
    assert_eq!(answer.len(), 8 + 2 + 32 + 1);
    let mut browser = TcpStream::connect(&address).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nUser-Agent: browser\r\n\r\n");
    browser.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The unread rest of the request may turn the close into a reset.
    let _ = browser.read_to_end(&mut answer).await;
    assert!(answer.len() <= 8 + 2 + 32);
    assert!(events.try_recv().is_err());
}

/// An authority and the certificate that it gave a node; each call makes another authority.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn make(host: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let write = |file, text: String| std::fs::write(directory.path().join(file), text).unwrap();
        write("ca.pem", authority.pem());
        write("node.pem", certificate.pem());
        write("node.key", key.serialize_pem());
        Self { directory }
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn security(&self, mutual: bool, authority: &Self) -> anyhow::Result<Security> {
        let link = link_tls("replication.tls_ca_file", authority, mutual);
        let certificate_file = self.file("node.pem");
        let key_file = self.file("node.key");
        Security::tls(&link, &TlsSettings { certificate_file, key_file, ..TlsSettings::default() })
    }
}

#[tokio::test]
async fn a_link_under_tls_carries_frames_both_ways() {
    let files = Files::make("127.0.0.1");
    for mutual in [false, true] {
        let security = files.security(mutual, &files).unwrap();
        let (one, _, mut one_events) = secured("secret", security.clone()).await;
        let (two, address, mut two_events) = secured("secret", security).await;
        one.dial(&address);
        let Some(PeerEvent::Linked { link: ours, .. }) = one_events.recv().await else {
            panic!("not linked")
        };
        let Some(PeerEvent::Linked { link: theirs, .. }) = two_events.recv().await else {
            panic!("not linked")
        };
        let big = Bytes::from(vec![7; 3 << 20]);
        one.send(ours, vec![Bytes::from_static(b"head"), big.clone()]);
        two.send(theirs, vec![big.clone()]);
        let (one, two) = (one_events.recv().await, two_events.recv().await);
        assert!(matches!(one, Some(PeerEvent::Received { frame, .. }) if frame == big));
        let whole = 4 + big.len();
        assert!(matches!(two, Some(PeerEvent::Received { frame, .. }) if frame.len() == whole));
    }
}

#[tokio::test]
async fn no_link_without_trust_and_none_between_tls_and_clear() {
    let (files, others) = (Files::make("127.0.0.1"), Files::make("127.0.0.1"));
    let elsewhere = Files::make("elsewhere.example");
    let good = || files.security(true, &files).unwrap();
    let cases = [
        ("the dialer's authority is another", files.security(false, &others).unwrap(), good()),
        ("the acceptor's authority is another", good(), files.security(true, &others).unwrap()),
        ("the dialer shows no certificate", files.security(false, &files).unwrap(), good()),
        (
            "the certificate is for another host",
            elsewhere.security(false, &elsewhere).unwrap(),
            elsewhere.security(false, &elsewhere).unwrap(),
        ),
        ("the dialer is in clear", Security::clear(), good()),
        ("the acceptor is in clear", good(), Security::clear()),
    ];
    for (case, dialer, acceptor) in cases {
        let (one, _, mut one_events) = secured("secret", dialer).await;
        let (_two, address, mut two_events) = secured("secret", acceptor).await;
        one.dial(&address);
        let failed = one_events.recv().await;
        assert!(matches!(failed, Some(PeerEvent::DialFailed { refused: false })), "{case}");
        assert!(two_events.try_recv().is_err(), "{case}");
    }
}

#[tokio::test]
async fn under_tls_the_password_counts_too() {
    let files = Files::make("127.0.0.1");
    let security = files.security(true, &files).unwrap();
    let (one, _, mut one_events) = secured("guess", security.clone()).await;
    let (_two, address, mut two_events) = secured("secret", security).await;
    one.dial(&address);
    assert!(matches!(one_events.recv().await, Some(PeerEvent::DialFailed { refused: false })));
    assert!(two_events.try_recv().is_err());
}

#[tokio::test]
async fn new_links_use_the_files_read_last_and_wrong_ones_change_nothing() {
    let (files, others) = (Files::make("127.0.0.1"), Files::make("127.0.0.1"));
    let security = files.security(true, &files).unwrap();
    let (_two, address, _two_events) = secured("secret", security.clone()).await;
    std::fs::write(files.file("node.pem"), "no certificate").unwrap();
    assert!(security.reload().unwrap_err().to_string().contains("tls.certificate_file"));
    let misfit = mixed(&others, &files);
    assert!(misfit.is_err(), "the certificate of one and the key of another");
    for file in ["ca.pem", "node.pem", "node.key"] {
        std::fs::copy(others.file(file), files.file(file)).unwrap();
    }
    security.reload().unwrap();
    let (one, _, mut one_events) = secured("secret", others.security(true, &others).unwrap()).await;
    one.dial(&address);
    assert!(matches!(one_events.recv().await, Some(PeerEvent::Linked { .. })));
}

fn mixed(certificate: &Files, key: &Files) -> anyhow::Result<Security> {
    let link = link_tls("replication.tls_ca_file", certificate, true);
    let (certificate_file, key_file) = (certificate.file("node.pem"), key.file("node.key"));
    Security::tls(&link, &TlsSettings { certificate_file, key_file, ..TlsSettings::default() })
}

fn link_tls(ca_key: &str, authority: &Files, mutual: bool) -> LinkTls {
    LinkTls { ca_key: ca_key.to_owned(), ca_file: authority.file("ca.pem"), mutual }
}

#[test]
fn a_file_that_is_no_good_is_told_by_the_setting_that_names_it() {
    for ca_key in ["replication.tls_ca_file", "arbiter.tls_ca_file"] {
        for (file, key) in
            [("ca.pem", ca_key), ("node.pem", "tls.certificate_file"), ("node.key", "tls.key_file")]
        {
            for mutual in [false, true] {
                let files = Files::make("127.0.0.1");
                let link = link_tls(ca_key, &files, mutual);
                std::fs::write(files.file(file), "nothing of use").unwrap();
                let (certificate_file, key_file) = (files.file("node.pem"), files.file("node.key"));
                let tls = TlsSettings { certificate_file, key_file, ..TlsSettings::default() };
                let told = format!("{:#}", Security::tls(&link, &tls).map(drop).unwrap_err());
                assert!(told.starts_with(&format!("{key}: ")), "{told}");
                assert!(told.contains(&files.file(file)), "{told}");
            }
        }
    }
}
