use crate::Limits;
use crate::test_world::World;
use bytes::Bytes;
use understudy_model::{
    AckMode, Body, ConnectionId, Consume, ConsumerNumber, DeclareQueue, DeleteQueue, DeliveryRef,
    Effect, Get, Protocol, Publish, Request, Text, Token,
};

const FIRST: ConnectionId = ConnectionId(1);
const SECOND: ConnectionId = ConnectionId(2);

fn publish(key: &'static str, confirm: Option<u64>, mandatory: bool) -> Request {
    Request::Publish(Publish {
        routing_key: Text::from_static(key),
        body: Body::from(Bytes::from_static(b"x")),
        confirm,
        mandatory,
        ..Publish::default()
    })
}

#[test]
fn what_a_client_did_is_its_protocols() {
    let mut world = World::seeded(Limits::default());
    world.connect(FIRST, Protocol::Amqp, "guest", "/");
    world.connect(SECOND, Protocol::Stomp, "guest", "/");
    let queue = Text::from_static("q");
    let declare = DeclareQueue { name: queue.clone(), ..DeclareQueue::default() };
    world.ask(FIRST, &Request::DeclareQueue(declare.clone()));
    world.ask(FIRST, &Request::DeclareQueue(declare));
    for request in [
        publish("q", Some(1), false),
        publish("none", None, false),
        publish("none", None, true),
        publish("q", None, false),
    ] {
        world.ask(FIRST, &request);
    }
    let get = Get { queue: queue.clone(), ack: AckMode::Auto, ..Get::default() };
    world.ask(FIRST, &Request::Get(get.clone()));
    world.turns();
    let consume =
        Consume { queue: queue.clone(), consumer: ConsumerNumber(7), ..Consume::default() };
    world.ask(SECOND, &Request::Consume(consume));
    let told = world.turns();
    let delivered = told.into_iter().find_map(|(_, effect)| match effect {
        Effect::Deliver(delivery) => Some(delivery),
        _ => None,
    });
    let delivery = delivered.unwrap();
    let (consumer, queue_id, lsn) = (delivery.consumer, delivery.queue, delivery.lsn);
    let deliveries = vec![DeliveryRef { consumer, queue: queue_id, lsn }];
    let settle = Request::Settle { deliveries, token: None };
    // The second one settles nothing.
    world.ask(SECOND, &settle);
    world.ask(SECOND, &settle);
    world.ask(FIRST, &Request::Get(get));
    world.turns();
    let delete = DeleteQueue { token: Token(9), name: queue, ..DeleteQueue::default() };
    world.ask(FIRST, &Request::DeleteQueue(delete));
    world.run(|broker, decided| broker.disconnect(FIRST, decided));

    let traffic = world.broker.traffic();
    let (amqp, stomp) = (traffic.of(Protocol::Amqp), traffic.of(Protocol::Stomp));
    assert_eq!((amqp.received, amqp.received_confirm, amqp.confirmed), (4, 1, 1));
    assert_eq!((amqp.routed, amqp.unroutable_dropped, amqp.unroutable_returned), (2, 1, 1));
    assert_eq!((amqp.got, amqp.get_empty, amqp.consumed), ([1, 0], 1, [0, 0]));
    assert_eq!((stomp.consumed, stomp.acknowledged, stomp.received), ([0, 1], 1, 0));
    assert_eq!((amqp.opened, amqp.closed, stomp.opened, stomp.closed), (1, 1, 1, 0));
    let queues = (traffic.queues_declared, traffic.queues_created, traffic.queues_deleted);
    assert_eq!(queues, (2, 1, 1));
    world.broker.forget_clients();
    assert_eq!(world.broker.traffic().of(Protocol::Stomp).closed, 1);
}
