use super::*;
use crate::inbox::{ClientSender, EventSender, SharedDriver};
use crate::mailbox::mailbox;
use crate::node::AlarmPolicy;
use crate::node::alone::{CLIENT, connect, publish, standalone};
use crate::space::SpaceWatch;
use understudy_model::{Body, Publish, Request};
use understudy_storage::{Log, LogOptions, StateStore};

const INFLIGHT_BYTES_MAX: usize = 10_000;

fn driver(dir: &std::path::Path) -> (Driver, ClientSender) {
    let shared_driver = Arc::new(SharedDriver::default());
    let (events, inbox) = EventSender::new(shared_driver.clone());
    let options = LogOptions { map_bytes_max: 1 << 26 };
    let (log, reader, _) = Log::open(dir, &options).unwrap();
    let state = StateStore::open(dir, 1 << 26).unwrap();
    let space = SpaceWatch::start(reader.clone(), 0, events.clone()).unwrap();
    let log =
        LogWriter::start(log, None, reader.clone(), dir.to_owned(), space, events.clone()).unwrap();
    let (node, first) = standalone(AlarmPolicy::Block, 0);
    let (clients, requests) = ClientSender::new(shared_driver, 16);
    let driver = Driver {
        node,
        clock: Clock::start(),
        shells: Shells {
            state: StateWriter::start(state, log.clone(), events.clone()).unwrap(),
            log,
            reader: Reader::start(reader, events).unwrap(),
            peer: None,
            arbiter: None,
            overview: watch::channel(Arc::default()).0,
            users: watch::channel(Arc::default()).0,
            serving: watch::channel(false).0,
        },
        events: inbox,
        clients: requests,
        inflight_bytes_max: INFLIGHT_BYTES_MAX,
        name: "test".into(),
        ended: oneshot::channel().0,
        turn: Turn::new(first),
    };
    (driver, clients)
}

#[test]
fn a_turn_takes_no_more_requests_than_may_be_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let (mut driver, clients) = driver(dir.path());
    while !driver.node.is_serving() {
        driver.turns().unwrap();
    }
    let (effects, _inbox) = mailbox();
    let trace = TraceSwitch::default();
    let opened = ClientEvent::Opened { connection: CLIENT, effects, peer: None, trace };
    let ask = |requests| ClientEvent::Requests { connection: CLIENT, requests };
    for event in [opened, ask(connect().into())] {
        clients.try_send(event).unwrap();
    }
    driver.turns().unwrap();
    for number in 1..=8 {
        let body = Body::from(bytes::Bytes::from(vec![7; INFLIGHT_BYTES_MAX / 2]));
        let publish = Publish { body, ..publish(number) };
        clients.try_send(ask(vec![Request::Publish(publish)])).unwrap();
    }
    driver.inputs().unwrap();
    assert_eq!(driver.clients.len(), 6, "the second one has filled it");
    assert!(driver.node.inflight_bytes() < 2 * INFLIGHT_BYTES_MAX);
}
