//! Transactions with a commit id: once, whoever asks again, and wherever.

use crate::Limits;
use crate::test_world::World;
use bytes::Bytes;
use understudy_model::{
    Connect, ConnectionId, DeclareQueue, Effect, ProducerSequence, Protocol, Publish, Refusal,
    RefusalKind, Reply, Request, Text, Token, Transaction,
};

const PRODUCER: u128 = 77;

fn connect(world: &mut World, id: u64) -> Vec<Effect> {
    let connect = Connect {
        token: Token(1),
        protocol: Protocol::Native,
        vhost: Text::from_static("/"),
        vhost_else: None,
        user: Text::from_static("guest"),
        client_name: Text::new(),
        producer: Some(PRODUCER),
    };
    world.ask(ConnectionId(id), &Request::Connect(connect))
}

fn world() -> World {
    let mut world = World::seeded(Limits::default());
    connect(&mut world, 1);
    let name = Text::from_static("q");
    let declare = DeclareQueue { token: Token(2), name, durable: true, ..DeclareQueue::default() };
    world.ask(ConnectionId(1), &Request::DeclareQueue(declare));
    world
}

fn commit(sequence: u64) -> ProducerSequence {
    ProducerSequence { producer: PRODUCER, sequence }
}

fn transaction(sequence: u64) -> Request {
    let publish = Publish {
        routing_key: Text::from_static("q"),
        properties: Bytes::from_static(&[0, 0]),
        ..Publish::default()
    };
    let publishes = vec![publish.clone(), publish];
    let commit = Some(commit(sequence));
    let transaction = Transaction { token: Token(9), commit, publishes, ..Transaction::default() };
    Request::Transaction(Box::new(transaction))
}

fn outcome(sequence: u64) -> Request {
    Request::Outcome { token: Token(9), commit: commit(sequence) }
}

fn replied(reply: Reply) -> Vec<Effect> {
    vec![Effect::Reply { token: Token(9), result: Ok(reply) }]
}

#[test]
fn a_commit_is_done_once_and_known_to_the_next_master() {
    let mut world = world();
    assert_eq!(world.ask(ConnectionId(1), &transaction(5)), replied(Reply::Done));
    for _ in 0..2 {
        connect(&mut world, 2);
        let already = replied(Reply::AlreadyCommitted);
        assert_eq!(world.ask(ConnectionId(2), &transaction(5)), already);
        assert_eq!(world.ask(ConnectionId(2), &outcome(5)), already);
        assert!(world.said(ConnectionId(2), &outcome(4)).starts_with("404 "));
        assert_eq!(world.broker.counts().ready, 2);
        world.reload();
    }
}

/// As the node decides requests that came together, before their group is committed.
#[test]
fn a_commit_that_is_only_decided_is_waited_for() {
    let mut world = world();
    let mut depends_on = Default::default();
    world.run(|broker, decided| {
        broker.decide(ConnectionId(1), &transaction(5), decided).unwrap();
        let last = decided.open.next_lsn();
        broker.decide(ConnectionId(1), &transaction(5), decided).unwrap();
        assert_eq!(decided.open.next_lsn(), last, "nothing was done again");
        depends_on = decided.depends_on;
    });
    assert_eq!(depends_on, world.broker.applied());
}

#[test]
fn a_producer_has_one_connection_and_what_the_former_still_sends_is_void() {
    let mut world = world();
    let told = connect(&mut world, 2);
    assert!(matches!(&told[..], [Effect::Close { .. }, Effect::Reply { result: Ok(_), .. }]));
    assert!(world.said(ConnectionId(2), &outcome(5)).starts_with("404 "));
    assert_eq!(world.ask(ConnectionId(1), &transaction(5)), []);
    assert!(world.said(ConnectionId(2), &outcome(5)).starts_with("404 "));
    assert_eq!(world.broker.counts().ready, 0);
    // It goes, and takes nothing of the new one's along.
    world.run(|broker, decided| broker.disconnect(ConnectionId(1), decided));
    assert!(matches!(&connect(&mut world, 3)[..], [Effect::Close { .. }, _]));
}

/// What a lost answer was about must not be told as not done, only because the disk is low by now.
#[test]
fn without_room_only_what_is_not_stored_yet_is_refused() {
    let mut world = world();
    let publish = |sequence| {
        let Request::Transaction(transaction) = transaction(9) else { unreachable!() };
        let one = transaction.publishes[0].clone();
        let producer = Some(ProducerSequence { producer: PRODUCER, sequence });
        Request::Publish(Publish { producer, confirm: Some(sequence), ..one })
    };
    world.ask(ConnectionId(1), &transaction(5));
    world.ask(ConnectionId(1), &publish(6));
    let low = Refusal::new(RefusalKind::PreconditionFailed, "low");
    let mut ask = |id, request: &Request| {
        let refusal = low.clone();
        let id = ConnectionId(id);
        world.run(|broker, decided| broker.refuse_to_store(id, request, refusal, decided))
    };
    assert_eq!(ask(1, &transaction(5)), replied(Reply::AlreadyCommitted));
    assert_eq!(ask(1, &publish(6)), [Effect::Confirm { channel: 0, through: 6 }]);
    let refused = Effect::Reply { token: Token(9), result: Err(low.clone()) };
    assert_eq!(ask(1, &transaction(7)), [refused]);
    let refusal = low.clone();
    let refused = Effect::PublishRefused { channel: 0, number: Some(8), refusal };
    assert_eq!(ask(1, &publish(8)), [refused]);
    assert_eq!(ask(2, &publish(8)), [], "nobody asks");
    assert_eq!(world.broker.counts().ready, 3);
    // With room again, what was refused is new.
    assert_eq!(world.ask(ConnectionId(1), &transaction(7)), replied(Reply::Done));
    world.ask(ConnectionId(1), &publish(8));
    assert_eq!(world.broker.counts().ready, 6);
}
