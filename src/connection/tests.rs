use super::*;
use crate::handle::{Measured, Overview};
use crate::inbox::ClientSender;
use crate::mailbox::{BATCHES_AHEAD_MAX, EffectSender};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use understudy_model::{Reply, Request, Token};

const ECHO_BYTES: usize = 100_000;

/// Each byte asks a question; each answer is written as many bytes; `Q` says goodbye.
struct Questions;

impl Session for Questions {
    fn on_bytes(&mut self, _now_ms: u64, input: &mut BytesMut, out: &mut Outbox) {
        for byte in input.split() {
            if byte == b'Q' {
                out.write.tail().extend_from_slice(b"bye");
                out.close = true;
            } else if byte == b'!' {
                panic!("a session that breaks its promise");
            } else {
                out.requests.push(Request::Barrier { token: Token(byte.into()) });
            }
        }
    }

    fn on_effects(&mut self, _now_ms: u64, effects: &mut Vec<Effect>, out: &mut Outbox) {
        for _ in effects.drain(..) {
            out.write.tail().extend_from_slice(&[7; ECHO_BYTES]);
        }
    }

    fn on_login(&mut self, _now_ms: u64, _outcome: LoginOutcome, _out: &mut Outbox) {}

    fn on_unread(&mut self, _: u64) {}

    fn on_timer(&mut self, _now_ms: u64, _out: &mut Outbox) {}

    fn deadline_ms(&self) -> Option<u64> {
        None
    }
}

struct Fixture {
    client: TcpStream,
    driver: mpsc::Receiver<ClientEvent>,
    effects: EffectSender,
}

async fn connect(events_max: usize) -> Fixture {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (socket, peer) = listener.accept().await.unwrap();
    let (events, mut driver) = ClientSender::new(Arc::default(), events_max);
    let (_, users) = watch::channel(Arc::new(Vec::new()));
    let node = NodeHandle {
        client_protocols: Vec::new(),
        measured: Measured::default(),
        events,
        overview: watch::channel(Arc::new(Overview::default())).1,
        users: users.clone(),
        serving: watch::channel(true).1,
        listeners: watch::channel(Vec::new()).1,
    };
    let connection = Connection {
        id: ConnectionId(1),
        socket: Transport::Clear(socket),
        tls: None,
        peer,
        session: Box::new(Questions),
        node,
        auth: Authenticator::new(users).unwrap(),
        clock: Clock::start(),
    };
    tokio::spawn(connection.run(()));
    let Some(ClientEvent::Opened { effects, .. }) = driver.recv().await else {
        panic!("not opened")
    };
    Fixture { client, driver, effects }
}

fn answer() -> Vec<Effect> {
    vec![Effect::Reply { token: Token(1), result: Ok(Reply::Done) }]
}

#[tokio::test]
async fn a_read_is_one_batch_and_the_end_is_told_once_and_last() {
    let mut fixture = connect(16).await;
    fixture.client.write_all(b"abc").await.unwrap();
    let Some(ClientEvent::Requests { requests, .. }) = fixture.driver.recv().await else {
        panic!("no requests")
    };
    assert_eq!(requests.len(), 3);
    fixture.client.write_all(b"d").await.unwrap();
    drop(fixture.client);
    let mut rest = Vec::new();
    while let Some(event) = fixture.driver.recv().await {
        rest.push(event);
    }
    assert!(matches!(rest[..], [ClientEvent::Requests { .. }, ClientEvent::Closed { .. }]));
}

#[tokio::test]
async fn who_is_far_ahead_of_the_node_is_not_read_until_it_has_taken_some() {
    let mut fixture = connect(1_024).await;
    for _ in 0..BATCHES_AHEAD_MAX {
        fixture.client.write_all(b"a").await.unwrap();
        assert!(matches!(fixture.driver.recv().await, Some(ClientEvent::Requests { .. })));
    }
    fixture.client.write_all(b"bc").await.unwrap();
    // It still gets what the node has for it.
    for _ in 0..20 {
        fixture.effects.send(answer()).unwrap();
        fixture.client.read_exact(&mut vec![0; ECHO_BYTES]).await.unwrap();
    }
    while let Ok(event) = fixture.driver.try_recv() {
        assert!(matches!(event, ClientEvent::Drained { .. }));
    }
    for _ in 0..BATCHES_AHEAD_MAX / 2 {
        fixture.effects.taken();
    }
    let requests = loop {
        match fixture.driver.recv().await {
            Some(ClientEvent::Requests { requests, .. }) => break requests,
            Some(_) => {}
            None => panic!("no requests"),
        }
    };
    assert_eq!(requests.len(), 2, "what it sent meanwhile");
}

#[tokio::test]
async fn a_goodbye_is_written_before_the_socket_closes_and_frees_the_deliveries_at_once() {
    let mut fixture = connect(16).await;
    fixture.client.write_all(b"aQ").await.unwrap();
    assert!(matches!(fixture.driver.recv().await, Some(ClientEvent::Requests { .. })));
    // The client keeps its side open and yet the driver knows.
    assert!(matches!(fixture.driver.recv().await, Some(ClientEvent::Closed { .. })));
    let mut all = Vec::new();
    fixture.client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"bye");
}

#[tokio::test]
async fn a_panic_of_the_session_is_told_as_closed() {
    let mut fixture = connect(16).await;
    fixture.client.write_all(b"!").await.unwrap();
    assert!(matches!(fixture.driver.recv().await, Some(ClientEvent::Closed { .. })));
}

#[tokio::test]
async fn effects_flow_while_the_driver_takes_no_requests() {
    let mut fixture = connect(1).await;
    for _ in 0..3 {
        fixture.client.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fixture.effects.send(answer()).unwrap();
    let mut answered = vec![0; ECHO_BYTES];
    fixture.client.read_exact(&mut answered).await.unwrap();
    // Two requests: one in the channel and one that waits; the third was not read yet.
    let mut asked = 0;
    let mut drained = 0;
    while asked < 3 || drained == 0 {
        match fixture.driver.recv().await {
            Some(ClientEvent::Requests { requests, .. }) => asked += requests.len(),
            Some(ClientEvent::Drained { bytes, .. }) => drained += bytes,
            _ => panic!("closed too early"),
        }
    }
    assert_eq!((asked, drained), (3, ECHO_BYTES as u64));
}

#[tokio::test]
async fn a_driver_that_does_not_know_the_connection_ends_it() {
    let mut fixture = connect(16).await;
    drop(fixture.effects);
    let mut all = Vec::new();
    fixture.client.read_to_end(&mut all).await.unwrap();
    assert!(all.is_empty());
    assert!(matches!(fixture.driver.recv().await, Some(ClientEvent::Closed { .. })));
}
