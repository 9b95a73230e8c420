//! What is handed out, to whom, and when not: marks, credit, congestion, gets, lost connections.

use crate::Limits;
use crate::test_world::World;
use bytes::Bytes;
use understudy_model::{
    AckMode, Bind, Body, ConnectionId, Consume, ConsumeMode, ConsumerNumber, Credit,
    DeclareExchange, DeclareQueue, DeleteQueue, Delivery, DeliveryRef, Effect, EnqueueView, Get,
    Lsn, MessageView, ProducerSequence, Protocol, Publish, Reply, Request, Text, Token,
};

const ANN: ConnectionId = ConnectionId(1);
const BOB: ConnectionId = ConnectionId(2);

fn d<T: Default>() -> T {
    T::default()
}

fn world(limits: Limits) -> World {
    let mut world = World::seeded(limits);
    for connection in [ANN, BOB] {
        assert_eq!(world.connect(connection, Protocol::Amqp, "guest", "/"), "");
    }
    declare(&mut world, "q", false);
    world
}

fn declare(world: &mut World, name: &str, exclusive: bool) {
    let declare = DeclareQueue { name: Text::from(name), durable: true, exclusive, ..d() };
    assert_eq!(world.said(ANN, &Request::DeclareQueue(declare)), "");
}

fn publish(body: &[u8]) -> Publish {
    Publish {
        routing_key: Text::from_static("q"),
        properties: Bytes::from_static(&[0, 0]),
        body: Body::from(Bytes::copy_from_slice(body)),
        ..d()
    }
}

fn send(world: &mut World, bodies: &[&[u8]]) {
    for body in bodies {
        world.ask(ANN, &Request::Publish(publish(body)));
    }
}

fn consume(world: &mut World, connection: ConnectionId, with: Consume) {
    let consume = Consume { consumer: ConsumerNumber(1), queue: Text::from_static("q"), ..with };
    assert_eq!(world.said(connection, &Request::Consume(consume)), "");
}

fn get(token: u64) -> Request {
    let (token, queue) = (Token(token), Text::from_static("q"));
    Request::Get(Get { token, queue, ack: AckMode::Manual, consumer: ConsumerNumber(9) })
}

/// Who got what, and whether it was flagged redelivered.
fn handed_out(told: &[(ConnectionId, Effect)]) -> Vec<(ConnectionId, Vec<u8>, bool)> {
    let delivery = |effect: &Effect| match effect {
        Effect::Deliver(delivery) | Effect::Got { delivery, .. } => Some(delivery.clone()),
        _ => None,
    };
    let deliveries = told.iter().filter_map(|(to, effect)| Some((*to, delivery(effect)?)));
    deliveries.map(|(to, one)| (to, body(&one), one.redelivered)).collect()
}

fn reference(delivery: &Delivery) -> DeliveryRef {
    DeliveryRef { consumer: delivery.consumer, queue: delivery.queue, lsn: delivery.lsn }
}

fn body(delivery: &Delivery) -> Vec<u8> {
    delivery.message().unwrap().body.to_vec()
}

fn fresh(to: ConnectionId, body: &[u8]) -> (ConnectionId, Vec<u8>, bool) {
    (to, body.to_vec(), false)
}

/// Else a takeover would hand it out a second time without the flag.
#[test]
fn nothing_is_handed_out_before_its_mark_is_committed() {
    let mut world = world(d());
    send(&mut world, &[b"a"]);
    consume(&mut world, ANN, d());
    assert_eq!(handed_out(&world.serve()), []);
    assert!(world.broker.mark_awaited());
    // The group with the mark is committed.
    world.run(|_, _| {});
    assert_eq!(handed_out(&world.serve()), [fresh(ANN, b"a")]);
    world.new_epoch();
    world.connect(ANN, Protocol::Amqp, "guest", "/");
    consume(&mut world, ANN, d());
    assert_eq!(handed_out(&world.turns()), [(ANN, b"a".to_vec(), true)]);
}

#[test]
fn a_window_is_used_up_by_deliveries_and_raised_by_its_consumer() {
    let mut world = world(d());
    send(&mut world, &[b"a", b"b", b"c", b"d"]);
    consume(&mut world, ANN, Consume { credit: Credit::Window(2), ack: AckMode::Auto, ..d() });
    assert_eq!(handed_out(&world.turns()), [fresh(ANN, b"a"), fresh(ANN, b"b")]);
    world.ask(ANN, &Request::AddCredit { consumer: ConsumerNumber(1), credit: 1 });
    assert_eq!(handed_out(&world.turns()), [fresh(ANN, b"c")]);
}

#[test]
fn a_connection_with_too_much_unsent_is_passed_over_until_it_is_out() {
    let mut world = world(Limits { outbound_bytes_max: 1_000, ..d() });
    let [first, second] = [[1; 2_000], [2; 2_000]];
    consume(&mut world, ANN, d());
    send(&mut world, &[&first, &second]);
    assert_eq!(handed_out(&world.turns()), [fresh(ANN, &first)]);
    world.broker.drained(ANN, 500);
    assert_eq!(handed_out(&world.turns()), []);
    world.broker.drained(ANN, 1_516);
    assert_eq!(handed_out(&world.turns()), [fresh(ANN, &second)]);
}

#[test]
fn a_get_of_a_connection_that_is_gone_takes_nothing() {
    let mut world = world(d());
    send(&mut world, &[b"a"]);
    world.ask(ANN, &get(1));
    world.run(|broker, decided| broker.disconnect(ANN, decided));
    assert_eq!(handed_out(&world.turns()), []);
    assert_eq!(world.broker.counts().ready, 1);
    world.ask(BOB, &get(2));
    assert_eq!(handed_out(&world.turns()), [fresh(BOB, b"a")]);
}

/// The receipt is released with the group that has the settle.
#[test]
fn a_settle_that_is_to_be_answered_is_logged_with_its_answer() {
    let kinds: [fn(Vec<DeliveryRef>) -> Request; 2] = [
        |deliveries| Request::Settle { deliveries, token: Some(Token(7)) },
        |deliveries| Request::Discard { deliveries, token: Some(Token(7)) },
    ];
    for finish in kinds {
        let mut world = world(d());
        send(&mut world, &[b"a"]);
        consume(&mut world, ANN, d());
        let Some((_, Effect::Deliver(one))) = world.turns().pop() else { panic!("delivered") };
        let request = finish(vec![reference(&one)]);
        let told = world.run(|broker, decided| {
            broker.decide(ANN, &request, decided).unwrap();
            assert_eq!(decided.open.len(), 1, "{request:?}");
        });
        assert_eq!(told, [Effect::Reply { token: Token(7), result: Ok(Reply::Done) }]);
        assert_eq!(world.broker.counts().unsettled, 0);
    }
}

#[test]
fn a_channels_limit_counts_what_is_outstanding_when_it_is_set() {
    let mut world = world(d());
    consume(&mut world, ANN, d());
    send(&mut world, &[b"a", b"b"]);
    let told = world.turns();
    assert_eq!(handed_out(&told), [fresh(ANN, b"a"), fresh(ANN, b"b")]);
    world.ask(ANN, &Request::ChannelPrefetch { channel: 0, limit: 2 });
    send(&mut world, &[b"c"]);
    assert_eq!(handed_out(&world.turns()), []);
    let Some((_, Effect::Deliver(one))) = told.first() else { panic!("{told:?}") };
    let deliveries = vec![reference(one)];
    world.ask(ANN, &Request::Settle { deliveries, token: None });
    assert_eq!(handed_out(&world.turns()), [fresh(ANN, b"c")]);
}

#[test]
fn who_only_browses_keeps_no_queue_and_ends_none() {
    let mut world = world(d());
    let name = Text::from_static("own");
    let declare = DeclareQueue { name: name.clone(), auto_delete: true, ..d() };
    world.ask(ANN, &Request::DeclareQueue(declare));
    let cancel = |number| Request::Cancel { token: d(), consumer: ConsumerNumber(number) };
    for (number, mode, left) in [(5, ConsumeMode::Browse, 2), (6, ConsumeMode::Take, 1)] {
        let (consumer, queue) = (ConsumerNumber(number), name.clone());
        world.ask(ANN, &Request::Consume(Consume { consumer, queue, mode, ..d() }));
        world.ask(ANN, &cancel(number));
        assert_eq!(world.broker.counts().queues, left, "{mode:?}");
    }
}

#[test]
fn the_messages_of_a_deleted_queue_hold_no_log_back() {
    let mut world = world(d());
    send(&mut world, &[b"a", b"b"]);
    let live = |world: &World| world.broker.segments().map(|segment| segment.live).sum::<u64>();
    assert_eq!(live(&world), 2);
    let delete = DeleteQueue { name: Text::from_static("q"), ..d() };
    assert_eq!(world.said(ANN, &Request::DeleteQueue(delete)), "");
    assert_eq!(live(&world), 0);
}

/// As two SENDs in one read do.
#[test]
fn a_missing_queue_that_is_published_to_twice_at_once_is_made_once() {
    let mut world = world(d());
    let routing_key = Text::from_static("new");
    let publish = Publish { routing_key, declare_missing: true, ..publish(b"a") };
    world.run(|broker, decided| {
        for _ in 0..2 {
            broker.decide(ANN, &Request::Publish(publish.clone()), decided).unwrap();
        }
    });
    let counts = world.broker.counts();
    assert_eq!((counts.queues, counts.ready), (2, 2));
}

/// The answer to the second waits for the commit of the first.
#[test]
fn a_publish_that_a_producer_repeats_before_its_commit_is_stored_once() {
    let mut world = world(d());
    let producer = ProducerSequence { producer: 5, sequence: 1 };
    let publish = |confirm| {
        let publish = Publish { producer: Some(producer), confirm: Some(confirm), ..publish(b"a") };
        Request::Publish(publish)
    };
    let told = world.run(|broker, decided| {
        broker.decide(ANN, &publish(1), decided).unwrap();
        let stored = decided.open.next_lsn().prev();
        assert_eq!(decided.depends_on, Lsn::ZERO);
        broker.decide(ANN, &publish(2), decided).unwrap();
        assert_eq!(decided.depends_on, stored);
    });
    // Both, as one.
    assert_eq!(told, [Effect::Confirm { channel: 0, through: 2 }]);
    assert_eq!(world.broker.counts().ready, 1);
}

#[test]
fn what_a_client_may_make_is_limited() {
    let limits = Limits {
        queues_max: 2,
        exchanges_max: 8,
        bindings_per_exchange_max: 1,
        consumers_per_connection_max: 1,
        ..d()
    };
    let mut world = world(limits);
    let name = |name| Text::from_static(name);
    let queue = |of| Request::DeclareQueue(DeclareQueue { name: name(of), ..d() });
    let missing = Publish { routing_key: name("new"), declare_missing: true, ..publish(b"a") };
    let exchange = |of| {
        let kind = name("fanout");
        Request::DeclareExchange(DeclareExchange { name: name(of), kind, ..d() })
    };
    let bind = |key| {
        let (source, destination) = (name("amq.direct"), name("q"));
        Request::Bind(Bind { source, destination, key: name(key), ..d() })
    };
    let consume = |number| {
        let (consumer, queue) = (ConsumerNumber(number), name("q"));
        Request::Consume(Consume { consumer, queue, ..d() })
    };
    let requests = [
        (queue("second"), ""),
        (queue("third"), "506 more than 2 queues"),
        (Request::Publish(missing), "506 more than 2 queues"),
        (exchange("one"), ""),
        (exchange("two"), "506 more than 8 exchanges"),
        (bind("a"), ""),
        (bind("b"), "506 more than 1 bindings"),
        (consume(1), ""),
        (consume(2), "506 more than 1 consumers on one connection"),
    ];
    for (request, said) in requests {
        assert_eq!(world.said(ANN, &request), said, "{request:?}");
    }
}

#[test]
fn an_exclusive_queue_goes_with_the_mastership_though_it_is_durable() {
    let mut world = world(d());
    declare(&mut world, "own", true);
    assert_eq!(world.broker.counts().queues, 2);
    world.new_epoch();
    assert_eq!(world.broker.counts().queues, 1);
}

#[test]
fn what_the_other_side_of_a_partition_stored_is_flagged() {
    let mut world = world(d());
    let queue = world.broker.topology.queue("/", "q").unwrap();
    let producer = ProducerSequence { producer: 5, sequence: 1 };
    let message = MessageView { exchange: "", routing_key: "q", properties: &[0, 0], body: b"a" };
    world.run(|_, decided| {
        let push = |out: &mut _| EnqueueView::encode_again(&[queue], producer, &message, out);
        decided.open.push(push);
    });
    consume(&mut world, ANN, d());
    assert_eq!(handed_out(&world.turns()), [(ANN, b"a".to_vec(), true)]);
}
