use super::*;
use crate::handle::{ClientEvent, Measured, Overview};
use crate::inbox::ClientSender;
use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use understudy_model::{Effect, LoginOutcome, Outbox};

struct Silent;

impl Session for Silent {
    fn on_bytes(&mut self, _now_ms: u64, _input: &mut BytesMut, _out: &mut Outbox) {}

    fn on_effects(&mut self, _now_ms: u64, effects: &mut Vec<Effect>, out: &mut Outbox) {
        effects.clear();
        out.close = true;
    }

    fn on_login(&mut self, _now_ms: u64, _outcome: LoginOutcome, _out: &mut Outbox) {}

    fn on_unread(&mut self, _: u64) {}

    fn on_timer(&mut self, _now_ms: u64, _out: &mut Outbox) {}

    fn deadline_ms(&self) -> Option<u64> {
        None
    }
}

struct Fixture {
    serving: watch::Sender<bool>,
    opened: watch::Receiver<Listeners>,
    driver: mpsc::Receiver<ClientEvent>,
}

fn start(connections_max: usize) -> Fixture {
    start_with(connections_max, Arc::new(|_, _| Ok(Box::new(Silent))))
}

fn start_with(connections_max: usize, sessions: SessionFactory) -> Fixture {
    let (events, driver) = ClientSender::new(Arc::default(), 16);
    let (serving, serving_seen) = watch::channel(false);
    let (opened, listeners) = watch::channel(Vec::new());
    let users = watch::channel(Arc::new(Vec::new())).1;
    let node = NodeHandle {
        client_protocols: Vec::new(),
        measured: Measured::default(),
        events,
        overview: watch::channel(Arc::new(Overview::default())).1,
        users: users.clone(),
        serving: serving_seen,
        listeners: listeners.clone(),
    };
    let shared = Shared {
        node,
        auth: Authenticator::new(users).unwrap(),
        clock: Clock::start(),
        connections_max,
        unreachable_s: 120,
        connections: Arc::default(),
        next_connection: Arc::default(),
        opened,
    };
    let listener = Listener {
        protocol: "silent",
        address: "127.0.0.1:0".into(),
        sessions,
        tls: None,
        web_socket_bytes_max: None,
    };
    tokio::spawn(listener.run(shared));
    Fixture { serving, opened: listeners, driver }
}

impl Fixture {
    async fn address(&mut self) -> String {
        let listeners = self.opened.wait_for(|listeners| !listeners.is_empty()).await.unwrap();
        assert_eq!(listeners[0].0, "silent");
        listeners[0].1.clone()
    }
}

#[tokio::test]
async fn the_port_is_open_only_while_the_node_serves_and_stays_the_same() {
    let mut fixture = start(10);
    assert!(fixture.opened.borrow().is_empty());
    fixture.serving.send_replace(true);
    let address = fixture.address().await;
    TcpStream::connect(&address).await.unwrap();
    fixture.serving.send_replace(false);
    fixture.opened.wait_for(Vec::is_empty).await.unwrap();
    let refused = TcpStream::connect(&address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    fixture.serving.send_replace(true);
    assert_eq!(fixture.address().await, address);
    TcpStream::connect(&address).await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_a_place_becomes_free_again() {
    let mut fixture = start(1);
    fixture.serving.send_replace(true);
    let address = fixture.address().await;
    let first = TcpStream::connect(&address).await.unwrap();
    let Some(ClientEvent::Opened { effects: _effects, .. }) = fixture.driver.recv().await else {
        panic!("not opened")
    };
    let mut second = TcpStream::connect(&address).await.unwrap();
    assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
    drop(first);
    assert!(matches!(fixture.driver.recv().await, Some(ClientEvent::Closed { .. })));
    let mut place = false;
    for _ in 0..100 {
        let _third = TcpStream::connect(&address).await.unwrap();
        let wait = tokio::time::timeout(Duration::from_millis(100), fixture.driver.recv());
        if matches!(wait.await, Ok(Some(ClientEvent::Opened { .. }))) {
            place = true;
            break;
        }
    }
    assert!(place);
}

#[tokio::test]
async fn without_randomness_a_connection_is_refused_and_its_place_is_free_again() {
    let mut fixture = start_with(
        1,
        Arc::new(|id, _| match id {
            ConnectionId(0) => Err(getrandom::Error::UNSUPPORTED),
            _ => Ok(Box::new(Silent)),
        }),
    );
    fixture.serving.send_replace(true);
    let address = fixture.address().await;
    let mut first = TcpStream::connect(&address).await.unwrap();
    assert_eq!(first.read(&mut [0]).await.unwrap(), 0);
    let _second = TcpStream::connect(&address).await.unwrap();
    assert!(matches!(fixture.driver.recv().await, Some(ClientEvent::Opened { .. })));
}

/// Sockets that are accepted have what the listener has.
#[tokio::test]
async fn a_machine_that_is_gone_is_asked_for_as_often_as_the_limit_allows() {
    for (limit_s, idle_s, interval_s, probes) in
        [(120, 60, 10, 6), (1, 1, 1, 1), (2, 1, 1, 1), (65_534, 32_767, 5_461, 6)]
    {
        let listener = bind_to_clients("127.0.0.1:0", limit_s).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (socket, _) = accepted.unwrap();
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), Duration::from_secs(idle_s));
        assert_eq!(sockopt::tcp_keepintvl(&socket).unwrap(), Duration::from_secs(interval_s));
        assert_eq!(sockopt::tcp_keepcnt(&socket).unwrap(), probes);
    }
}
