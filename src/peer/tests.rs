use super::{PeerEvent, PeerHandle};
use bytes::Bytes;
use tokio::sync::mpsc;

async fn node(password: &str) -> (PeerHandle, String, mpsc::UnboundedReceiver<PeerEvent>) {
    let (sender, events) = mpsc::unbounded_channel();
    let tell = move |event| {
        let _ = sender.send(event);
    };
    let (handle, address) =
        PeerHandle::start("127.0.0.1:0", "pair", password, tell).await.unwrap();
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
