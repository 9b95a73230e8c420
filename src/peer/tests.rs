use super::{PeerEvent, PeerHandle};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

async fn node(password: &str) -> (PeerHandle, String, mpsc::UnboundedReceiver<PeerEvent>) {
    let (sender, events) = mpsc::unbounded_channel();
    let tell = move |event| {
        let _ = sender.send(event);
    };
    let (handle, address) = PeerHandle::start("127.0.0.1:0", "pair", password, tell).await.unwrap();
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
