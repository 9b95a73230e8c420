//! What queues do by their rules: dead-lettering, time to live, limits, priorities, delays. Run
//! as a node runs them, with saved state and a new epoch in between where that could matter.

use crate::Limits;
use crate::test_world::World;
use bytes::Bytes;
use understudy_model::{
    AckMode, Body, Change, ConnectionId, Consume, ConsumerNumber, Credit, DeclareExchange,
    DeclareQueue, Delivery, DeliveryRef, Effect, Get, Manage, PolicyRecord, Properties, Protocol,
    Publish, Reply, Request, Table, Text, Token, Value,
};

const ANN: ConnectionId = ConnectionId(1);
const ADMIN: ConnectionId = ConnectionId(9);

fn d<T: Default>() -> T {
    T::default()
}

fn table(entries: &[(&str, Value)]) -> Table {
    let mut table = Table::default();
    entries.iter().for_each(|(name, value)| table.push(name, value.clone()));
    table
}

fn dead_letters_to(exchange: &str, key: &str) -> [(&'static str, Value); 2] {
    [
        ("x-dead-letter-exchange", Value::text(exchange)),
        ("x-dead-letter-routing-key", Value::text(key)),
    ]
}

struct Broker(World);

impl Broker {
    fn new() -> Self {
        let world = World::seeded(Limits::default());
        let mut broker = Self(world);
        broker.connect();
        broker
    }

    fn connect(&mut self) {
        assert_eq!(self.0.connect(ANN, Protocol::Amqp, "guest", "/"), "");
        assert_eq!(self.0.connect(ADMIN, Protocol::Management, "", ""), "");
    }

    fn queue(&mut self, name: &str, arguments: &[(&str, Value)]) {
        let (name, arguments) = (Text::from(name), table(arguments).to_bytes());
        let declare = DeclareQueue { name, durable: true, arguments, ..d() };
        assert_eq!(self.0.said(ANN, &Request::DeclareQueue(declare)), "");
    }

    fn publish_with(
        &mut self,
        exchange: &str,
        key: &str,
        body: &str,
        properties: Properties,
    ) -> Vec<Effect> {
        let publish = Publish {
            exchange: Text::from(exchange),
            routing_key: Text::from(key),
            properties: properties.to_bytes(),
            body: Body::from(Bytes::copy_from_slice(body.as_bytes())),
            confirm: Some(1),
            ..d()
        };
        self.0.ask(ANN, &Request::Publish(publish))
    }

    /// True if it was confirmed, false if it was refused.
    fn publish(&mut self, key: &str, body: &str) -> bool {
        let effects = self.publish_with("", key, body, d());
        assert_eq!(effects.len(), 1, "{effects:?}");
        matches!(effects[0], Effect::Confirm { .. })
    }

    fn consume(&mut self, number: u32, queue: &str) {
        let consume = Consume {
            token: d(),
            consumer: ConsumerNumber(number),
            channel: 1,
            queue: Text::from(queue),
            ack: AckMode::Manual,
            exclusive: false,
            priority: 0,
            credit: Credit::Prefetch(0),
            ..Consume::default()
        };
        assert_eq!(self.0.said(ANN, &Request::Consume(consume)), "");
    }

    fn cancel(&mut self, number: u32) {
        self.0.ask(ANN, &Request::Cancel { token: d(), consumer: ConsumerNumber(number) });
    }

    fn deliveries(&mut self) -> Vec<Delivery> {
        let told = self.0.turns().into_iter();
        told.filter_map(|(_, effect)| match effect {
            Effect::Deliver(delivery) => Some(delivery),
            _ => None,
        })
        .collect()
    }

    /// Takes one message from the queue.
    fn get(&mut self, queue: &str) -> Option<Delivery> {
        self.0.turns();
        let get = Get { queue: Text::from(queue), consumer: ConsumerNumber(99), ..d() };
        let said = self.0.ask(ANN, &Request::Get(get));
        let empty = Effect::Reply { token: d(), result: Ok(Reply::GetEmpty) };
        if said == [empty.clone()] {
            return None;
        }
        let told = self.0.turns().into_iter().find_map(|(_, effect)| match effect {
            Effect::Got { delivery, .. } => Some(Some(delivery)),
            effect if effect == empty => Some(None),
            _ => None,
        });
        told.expect("a get is answered")
    }

    fn bodies(&mut self, queue: &str) -> Vec<String> {
        std::iter::from_fn(|| self.get(queue)).map(|delivery| body(&delivery)).collect()
    }

    fn reject(&mut self, delivery: &Delivery) {
        let deliveries = vec![reference(delivery)];
        self.0.ask(ANN, &Request::Discard { deliveries, token: None });
        self.0.turns();
    }

    fn return_it(&mut self, delivery: &Delivery) {
        let deliveries = vec![reference(delivery)];
        self.0.ask(ANN, &Request::Return { deliveries, token: None });
    }

    fn wait(&mut self, ms: u64) {
        self.0.now_ms += ms;
        self.0.turns();
    }

    /// Another node takes over with what was saved.
    fn take_over(&mut self) {
        self.0.reload();
        self.connect();
    }

    fn ready(&self, queue: &str) -> Option<u64> {
        let id = self.0.broker.topology.queue("/", queue)?;
        Some(self.0.broker.queues.get(&id)?.ready())
    }

    /// Live pairs of queue and message, as the segments count them and as the queues do.
    fn assert_counts(&self) {
        let counted: u64 = self.0.broker.segments().map(|segment| segment.live).sum();
        let queues: u64 = self.0.broker.queues.values().map(|q| q.unsettled().len()).sum();
        let all = understudy_model::Lsn(u64::MAX - 1);
        let delayed = self.0.broker.delayed.range(d(), all).count() as u64;
        assert_eq!(counted, queues + delayed);
    }
}

fn reference(delivery: &Delivery) -> DeliveryRef {
    DeliveryRef { consumer: delivery.consumer, queue: delivery.queue, lsn: delivery.lsn }
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message().unwrap().body.to_vec()).unwrap()
}

fn headers(delivery: &Delivery) -> Table {
    let message = delivery.message().unwrap();
    Properties::decode(message.properties).unwrap().headers.unwrap_or_default()
}

/// Queue and reason of each entry of `x-death`, with its count.
fn deaths(delivery: &Delivery) -> Vec<(String, String, i64)> {
    let Some(Value::Array(deaths)) = headers(delivery).get("x-death").cloned() else {
        return vec![];
    };
    let entry = |death: &Value| {
        let Value::Table(death) = death else { panic!("not a table") };
        let text = |name: &str| death.get(name).and_then(Value::as_str).unwrap().to_owned();
        (text("queue"), text("reason"), death.get("count").and_then(Value::as_i64).unwrap())
    };
    deaths.iter().map(entry).collect()
}

fn expiring(after_ms: &str) -> Properties {
    Properties { expiration: Some(Text::from(after_ms)), ..d() }
}

#[test]
fn a_rejected_message_moves_once() {
    let mut broker = Broker::new();
    broker.queue("dead", &[]);
    broker.queue("q", &dead_letters_to("", "dead"));
    assert!(broker.publish("q", "one"));
    let delivery = broker.get("q").unwrap();
    broker.reject(&delivery);
    assert_eq!((broker.ready("q"), broker.ready("dead")), (Some(0), Some(1)));
    broker.assert_counts();
    broker.take_over();
    let moved = broker.get("dead").unwrap();
    assert_eq!(body(&moved), "one");
    assert_eq!(deaths(&moved), [("q".into(), "rejected".into(), 1)]);
    assert_eq!((broker.get("q"), broker.get("dead")), (None, None));
}

#[test]
fn what_no_queue_takes_is_gone() {
    let mut broker = Broker::new();
    broker.queue("lost", &dead_letters_to("", "nowhere"));
    broker.queue("missing", &dead_letters_to("no such exchange", "x"));
    for queue in ["lost", "missing"] {
        assert!(broker.publish(queue, "one"));
        let delivery = broker.get(queue).unwrap();
        broker.reject(&delivery);
        broker.take_over();
        assert_eq!(broker.ready(queue), Some(0));
    }
    broker.assert_counts();
}

#[test]
fn messages_expire_by_their_own_time_and_by_the_queues() {
    let mut broker = Broker::new();
    broker.queue("dead", &[]);
    let mut arguments = dead_letters_to("", "dead").to_vec();
    arguments.push(("x-message-ttl", Value::I32(1_000)));
    broker.queue("q", &arguments);
    broker.publish("q", "slow");
    broker.publish_with("", "q", "fast", expiring("100"));
    broker.wait(99);
    broker.take_over();
    assert_eq!(broker.ready("q"), Some(2));
    // Only at the head, as RabbitMQ: what is behind waits.
    broker.wait(500);
    assert_eq!(broker.ready("q"), Some(2));
    broker.wait(500);
    assert_eq!((broker.ready("q"), broker.ready("dead")), (Some(0), Some(2)));
    assert_eq!(deaths(&broker.get("dead").unwrap()), [("q".into(), "expired".into(), 1)]);
    let fast = broker.get("dead").unwrap();
    assert_eq!(body(&fast), "fast");
    let message = fast.message().unwrap();
    assert_eq!(Properties::decode(message.properties).unwrap().expiration, None);
    broker.assert_counts();
}

#[test]
fn a_time_to_live_of_0_is_for_consumers_that_wait() {
    let mut broker = Broker::new();
    broker.queue("q", &[]);
    broker.publish_with("", "q", "unwanted", expiring("0"));
    broker.wait(0);
    assert_eq!(broker.ready("q"), Some(0));
    broker.consume(1, "q");
    broker.publish_with("", "q", "wanted", expiring("0"));
    broker.0.now_ms += 10;
    let told = broker.deliveries();
    assert_eq!(told.iter().map(body).collect::<Vec<_>>(), ["wanted"]);
    broker.return_it(&told[0]);
    assert!(broker.deliveries().is_empty(), "it was handed out at once, and had its chance");
    assert_eq!(broker.ready("q"), Some(0));
    broker.assert_counts();
}

#[test]
fn an_unused_queue_goes() {
    let mut broker = Broker::new();
    broker.queue("q", &[("x-expires", Value::I32(1_000))]);
    broker.wait(900);
    broker.queue("q", &[("x-expires", Value::I32(1_000))]);
    broker.wait(900);
    broker.consume(1, "q");
    broker.wait(5_000);
    broker.cancel(1);
    broker.wait(900);
    assert_eq!(broker.ready("q"), Some(0));
    broker.take_over();
    broker.wait(0);
    broker.wait(900);
    assert_eq!(broker.ready("q"), Some(0));
    broker.wait(100);
    assert_eq!(broker.ready("q"), None);
}

#[test]
fn a_queue_that_is_too_long_drops_its_head() {
    let mut broker = Broker::new();
    broker.queue("dead", &[]);
    let mut arguments = dead_letters_to("", "dead").to_vec();
    arguments.push(("x-max-length", Value::I32(2)));
    broker.queue("q", &arguments);
    for text in ["1", "2", "3", "4"] {
        assert!(broker.publish("q", text));
    }
    assert_eq!(broker.bodies("dead"), ["1", "2"]);
    broker.take_over();
    assert_eq!(broker.bodies("q"), ["3", "4"]);
    broker.queue("bytes", &[("x-max-length-bytes", Value::I32(5))]);
    for text in ["111", "222", "3", "4"] {
        broker.publish("bytes", text);
    }
    broker.wait(0);
    broker.take_over();
    assert_eq!(broker.bodies("bytes"), ["222", "3", "4"]);
    broker.assert_counts();
}

#[test]
fn a_get_right_behind_a_return_finds_what_the_limit_leaves() {
    let mut broker = Broker::new();
    broker.queue("q", &[("x-max-length", Value::I32(1))]);
    broker.publish("q", "1");
    let taken = broker.get("q").unwrap();
    broker.publish("q", "2");
    broker.return_it(&taken);
    let get = Get { queue: Text::from_static("q"), consumer: ConsumerNumber(99), ..d() };
    assert_eq!(broker.0.ask(ANN, &Request::Get(get)), []);
    let got = broker.0.turns().into_iter().find_map(|(_, effect)| match effect {
        Effect::Got { delivery, remaining, .. } => Some((body(&delivery), remaining)),
        _ => None,
    });
    assert_eq!(got, Some(("2".into(), 0)));
}

#[test]
fn a_full_queue_refuses() {
    let mut broker = Broker::new();
    broker.queue("dead", &[]);
    let reject = |how: &str| [("x-max-length", Value::I32(1)), ("x-overflow", Value::text(how))];
    broker.queue("q", &reject("reject-publish"));
    let mut arguments = dead_letters_to("", "dead").to_vec();
    arguments.extend(reject("reject-publish-dlx"));
    broker.queue("dlx", &arguments);
    for queue in ["q", "dlx"] {
        assert!(broker.publish(queue, "first"));
        assert!(!broker.publish(queue, "second"));
        assert_eq!(broker.bodies(queue), ["first"]);
        assert!(broker.publish(queue, "third"), "what is outstanding does not count");
    }
    let dead = broker.get("dead").unwrap();
    assert_eq!(
        (body(&dead), deaths(&dead)),
        ("second".into(), vec![("dlx".into(), "maxlen".into(), 1)])
    );
    assert_eq!(broker.get("dead"), None);
    broker.assert_counts();
}

#[test]
fn publishes_under_way_count_against_a_limit() {
    let mut broker = Broker::new();
    let reject = ("x-overflow", Value::text("reject-publish"));
    broker.queue("q", &[("x-max-length", Value::I32(2)), reject]);
    let publish = |n| {
        Request::Publish(Publish {
            routing_key: Text::from_static("q"),
            properties: Properties::default().to_bytes(),
            confirm: Some(n),
            ..d()
        })
    };
    let effects = broker.0.run(|broker, decided| {
        (1..5).for_each(|n| broker.decide(ANN, &publish(n), decided).unwrap());
    });
    let nacks = effects.iter().filter(|effect| matches!(effect, Effect::Nack { .. })).count();
    assert_eq!((nacks, broker.ready("q")), (2, Some(2)));
}

#[test]
fn only_clients_break_a_circle() {
    let mut broker = Broker::new();
    let mut arguments = dead_letters_to("", "b").to_vec();
    arguments.push(("x-message-ttl", Value::I32(10)));
    broker.queue("a", &arguments);
    let mut arguments = dead_letters_to("", "a").to_vec();
    arguments.push(("x-message-ttl", Value::I32(10)));
    broker.queue("b", &arguments);
    broker.publish("a", "round");
    broker.wait(10);
    assert_eq!((broker.ready("a"), broker.ready("b")), (Some(0), Some(1)));
    broker.wait(10);
    assert_eq!((broker.ready("a"), broker.ready("b")), (Some(0), Some(0)));
    broker.queue("retry", &dead_letters_to("", "retry"));
    broker.publish("retry", "again");
    for count in 1..4 {
        let delivery = broker.get("retry").unwrap();
        broker.reject(&delivery);
        let again = broker.get("retry").unwrap();
        assert_eq!(deaths(&again), [("retry".into(), "rejected".into(), count)]);
        broker.return_it(&again);
    }
    broker.assert_counts();
}

#[test]
fn urgent_messages_come_first() {
    let mut broker = Broker::new();
    broker.queue("q", &[("x-max-priority", Value::I32(5))]);
    for (text, priority) in
        [("plain", None), ("low", Some(1)), ("high", Some(9)), ("high too", Some(5))]
    {
        broker.publish_with("", "q", text, Properties { priority, ..d() });
    }
    broker.take_over();
    let high = broker.get("q").unwrap();
    assert_eq!(body(&high), "high");
    broker.return_it(&high);
    assert_eq!(broker.bodies("q"), ["high", "high too", "low", "plain"]);
    broker.take_over();
    assert_eq!(broker.bodies("q"), ["high", "high too", "low", "plain"]);
    broker.assert_counts();
}

#[test]
fn returns_are_counted_and_limited() {
    let mut broker = Broker::new();
    broker.queue("dead", &[]);
    let mut arguments = dead_letters_to("", "dead").to_vec();
    arguments.push(("x-delivery-limit", Value::I32(2)));
    broker.queue("q", &arguments);
    broker.publish("q", "poison");
    for count in 0..3 {
        let delivery = broker.get("q").unwrap();
        assert_eq!(delivery.returns, count);
        let counted = delivery.counted_properties(&delivery.message().unwrap());
        let told = counted.and_then(|raw| Properties::decode(&raw).unwrap().headers);
        let expected =
            (count > 0).then(|| table(&[("x-delivery-count", Value::I64(count.into()))]));
        assert_eq!(told, expected);
        broker.return_it(&delivery);
        if count == 1 {
            broker.take_over();
        }
    }
    assert_eq!(broker.get("q"), None);
    let dead = broker.get("dead").unwrap();
    assert_eq!(deaths(&dead), [("q".into(), "delivery_limit".into(), 1)]);
}

#[test]
fn one_consumer_is_active_until_it_goes() {
    let mut broker = Broker::new();
    broker.queue("q", &[("x-single-active-consumer", Value::Bool(true))]);
    broker.consume(1, "q");
    broker.consume(2, "q");
    let served = |broker: &mut Broker| {
        (0..3).for_each(|_| assert!(broker.publish("q", "x")));
        broker.deliveries().iter().map(|delivery| delivery.consumer.0).collect::<Vec<_>>()
    };
    assert_eq!(served(&mut broker), [1, 1, 1]);
    broker.cancel(1);
    broker.consume(3, "q");
    assert_eq!(served(&mut broker), [2, 2, 2]);
}

#[test]
fn a_policy_sets_the_rules_of_queues_that_are_there() {
    let mut broker = Broker::new();
    broker.queue("dead", &[]);
    broker.queue("tmp.q", &[]);
    (0..4).for_each(|n| assert!(broker.publish("tmp.q", &n.to_string())));
    let definition = table(&[
        ("max-length", Value::I64(3)),
        ("dead-letter-exchange", Value::text("")),
        ("dead-letter-routing-key", Value::text("dead")),
    ]);
    let change = Change::PutPolicy(PolicyRecord {
        vhost: Text::from_static("/"),
        name: Text::from_static("short"),
        pattern: Text::from_static("^tmp"),
        apply_to: understudy_model::ApplyTo::Queues,
        priority: 0,
        definition: definition.to_bytes(),
    });
    let manage = Manage { token: Token(1), change };
    broker.0.ask(ADMIN, &Request::Manage(Box::new(manage)));
    assert_eq!(broker.bodies("dead"), ["0"]);
    broker.take_over();
    assert!(broker.publish("tmp.q", "4"));
    assert_eq!(broker.bodies("dead"), ["0", "1"], "and of a node that takes over");
    let (vhost, name) = (Text::from_static("/"), Text::from_static("short"));
    let manage = Manage { token: Token(1), change: Change::ClearPolicy { vhost, name } };
    broker.0.ask(ADMIN, &Request::Manage(Box::new(manage)));
    assert!(broker.publish("tmp.q", "5"));
    broker.wait(0);
    assert_eq!(broker.ready("tmp.q"), Some(4));
}

#[test]
fn a_delayed_message_is_routed_when_it_is_due() {
    let mut broker = Broker::new();
    broker.queue("later", &[]);
    let declare = DeclareExchange {
        name: Text::from_static("delayed"),
        kind: Text::from_static("x-delayed-message"),
        durable: true,
        arguments: table(&[("x-delayed-type", Value::text("direct"))]).to_bytes(),
        ..d()
    };
    assert_eq!(broker.0.said(ANN, &Request::DeclareExchange(declare.clone())), "");
    let bind = understudy_model::Bind {
        source: Text::from_static("delayed"),
        destination: Text::from_static("later"),
        key: Text::from_static("k"),
        ..d()
    };
    assert_eq!(broker.0.said(ANN, &Request::Bind(bind)), "");
    let delay = |ms| Properties { headers: Some(table(&[("x-delay", Value::I32(ms))])), ..d() };
    for (text, ms) in [("late", 500), ("soon", 100), ("now", 0)] {
        broker.publish_with("delayed", "k", text, delay(ms));
    }
    broker.publish_with("delayed", "elsewhere", "unroutable", delay(50));
    assert_eq!(broker.ready("later"), Some(1));
    broker.assert_counts();
    broker.wait(99);
    broker.take_over();
    broker.assert_counts();
    assert_eq!(broker.ready("later"), Some(1));
    broker.wait(1);
    assert_eq!(broker.ready("later"), Some(2));
    broker.wait(400);
    let got: Vec<_> = std::iter::from_fn(|| broker.get("later")).collect();
    assert_eq!(got.iter().map(body).collect::<Vec<_>>(), ["now", "soon", "late"]);
    assert_eq!(headers(&got[2]).get("x-delay"), Some(&Value::I64(-500)));
    broker.assert_counts();
    let wrong =
        DeclareExchange { arguments: Bytes::new(), name: Text::from_static("w"), ..declare };
    assert!(broker.0.said(ANN, &Request::DeclareExchange(wrong)).starts_with("406 "));
}

#[test]
fn further_keys_reach_further_queues() {
    let mut broker = Broker::new();
    ["a", "b", "c"].iter().for_each(|queue| broker.queue(queue, &[]));
    let keys = |key: &str| Value::Array(vec![Value::text(key)]);
    let headers = Some(table(&[("CC", keys("b")), ("BCC", keys("c"))]));
    broker.publish_with("", "a", "copied", Properties { headers, ..d() });
    for queue in ["a", "b", "c"] {
        let delivery = broker.get(queue).unwrap();
        assert_eq!(headers_names(&delivery), ["CC"], "{queue}");
    }
}

fn headers_names(delivery: &Delivery) -> Vec<String> {
    headers(delivery).0.iter().map(|(name, _)| name.to_string()).collect()
}

#[test]
fn queues_take_turns_under_a_channels_prefetch() {
    let mut broker = Broker::new();
    broker.0.ask(ANN, &Request::ChannelPrefetch { channel: 1, limit: 1 });
    for (number, queue) in [(1, "a"), (2, "b"), (3, "c")] {
        broker.queue(queue, &[]);
        for n in 0..4 {
            assert!(broker.publish(queue, &format!("{queue}{n}")));
        }
        broker.consume(number, queue);
    }
    let mut got = Vec::new();
    for _ in 0..12 {
        let deliveries = broker.deliveries();
        let [delivery] = &deliveries[..] else { panic!("{got:?} then {deliveries:?}") };
        got.push(String::from_utf8(delivery.message().unwrap().body.to_vec()).unwrap());
        let (consumer, queue, lsn) = (delivery.consumer, delivery.queue, delivery.lsn);
        let deliveries = vec![DeliveryRef { consumer, queue, lsn }];
        broker.0.ask(ANN, &Request::Settle { deliveries, token: None });
    }
    let expected = ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2", "a3", "b3", "c3"];
    assert_eq!(got, expected);
}
