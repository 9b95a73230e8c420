//! Consumers that select, and such that browse.

use crate::Limits;
use crate::test_world::World;
use bytes::Bytes;
use understudy_model::{
    AckMode, Body, ConnectionId, Consume, ConsumeMode, ConsumerNumber, Credit, DeclareQueue,
    Delivery, DeliveryRef, Effect, Properties, Protocol, Publish, Request, Table, Text, Value,
};

const ANN: ConnectionId = ConnectionId(1);

fn d<T: Default>() -> T {
    T::default()
}

struct Broker(World);

/// What a consumer was told: its number and the body, or nothing more to see.
type Told = Vec<(u32, String)>;

impl Broker {
    fn new(arguments: &[(&str, Value)]) -> Self {
        let world = World::seeded(Limits::default());
        let mut broker = Self(world);
        broker.connect();
        let mut table = Table::default();
        arguments.iter().for_each(|(name, value)| table.push(name, value.clone()));
        let (name, arguments) = (Text::from("q"), table.to_bytes());
        let declare = DeclareQueue { name, durable: true, arguments, ..d() };
        assert_eq!(broker.0.said(ANN, &Request::DeclareQueue(declare)), "");
        broker
    }

    fn connect(&mut self) {
        assert_eq!(self.0.connect(ANN, Protocol::Stomp, "guest", "/"), "");
    }

    /// `what` is the body; its first word the header `kind`, a digit at its end the priority.
    fn publish(&mut self, what: &[&str]) {
        for body in what {
            let mut headers = Table::default();
            headers.push("kind", Value::text(body.split(' ').next().unwrap_or_default()));
            let priority = body.chars().last().and_then(|c| c.to_digit(10)).map(|p| p as u8);
            let properties = Properties { headers: Some(headers), priority, ..d() };
            let publish = Publish {
                routing_key: Text::from("q"),
                properties: properties.to_bytes(),
                body: Body::from(Bytes::copy_from_slice(body.as_bytes())),
                ..d()
            };
            self.0.ask(ANN, &Request::Publish(publish));
        }
    }

    fn consume(&mut self, number: u32, selector: &str, with: Consume) {
        let consume = Consume {
            consumer: ConsumerNumber(number),
            queue: Text::from("q"),
            selector: Text::from(selector),
            ..with
        };
        assert_eq!(self.0.said(ANN, &Request::Consume(consume)), "");
    }

    fn deliveries(&mut self) -> Vec<Delivery> {
        let told = self.0.turns().into_iter();
        told.filter_map(|(_, effect)| match effect {
            Effect::Deliver(delivery) => Some(delivery),
            _ => None,
        })
        .collect()
    }

    fn told(&mut self) -> Told {
        self.deliveries().iter().map(|one| (one.consumer.0, body(one))).collect()
    }

    fn with(&mut self, deliveries: &[Delivery], what: fn(Vec<DeliveryRef>) -> Request) {
        let refs = deliveries.iter().map(|one| DeliveryRef {
            consumer: one.consumer,
            queue: one.queue,
            lsn: one.lsn,
        });
        self.0.ask(ANN, &what(refs.collect()));
    }

    fn cancel(&mut self, number: u32) {
        self.0.ask(ANN, &Request::Cancel { token: d(), consumer: ConsumerNumber(number) });
    }

    fn ready(&self) -> u64 {
        self.0.broker.counts().ready
    }

    fn unsettled(&self) -> u64 {
        self.0.broker.counts().unsettled
    }
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message().unwrap().body.to_vec()).unwrap()
}

fn told(wanted: &[(u32, &str)]) -> Told {
    wanted.iter().map(|(number, body)| (*number, (*body).to_owned())).collect()
}

fn settle(deliveries: Vec<DeliveryRef>) -> Request {
    Request::Settle { deliveries, token: None }
}

fn give_back(deliveries: Vec<DeliveryRef>) -> Request {
    Request::Return { deliveries, token: None }
}

fn prefetch(limit: u32) -> Consume {
    Consume { credit: Credit::Prefetch(limit), ..d() }
}

#[test]
fn what_is_wanted_is_found_behind_what_is_not_and_the_rest_stays() {
    let mut broker = Broker::new(&[]);
    broker.publish(&["red a", "blue a", "red b", "blue b"]);
    broker.consume(1, "kind = 'blue'", d());
    let first = broker.deliveries();
    assert_eq!(first.iter().map(body).collect::<Vec<_>>(), ["blue a", "blue b"]);
    assert!(first.iter().all(|delivery| !delivery.redelivered));
    broker.publish(&["red c", "blue c"]);
    assert_eq!(broker.told(), told(&[(1, "blue c")]));
    assert_eq!((broker.ready(), broker.unsettled()), (3, 6));
    broker.with(&first, settle);
    broker.consume(2, "", d());
    assert_eq!(broker.told(), told(&[(2, "red a"), (2, "red b"), (2, "red c")]));
    assert_eq!((broker.ready(), broker.unsettled()), (0, 4));
}

#[test]
fn what_is_given_back_is_offered_again_in_its_place_and_flagged() {
    let mut broker = Broker::new(&[]);
    broker.publish(&["red a", "blue a", "blue b", "blue c"]);
    broker.consume(1, "kind = 'blue'", prefetch(2));
    let two = broker.deliveries();
    assert_eq!(two.iter().map(body).collect::<Vec<_>>(), ["blue a", "blue b"]);
    broker.with(&two, give_back);
    let again = broker.deliveries();
    let shown: Vec<_> = again.iter().map(|one| (body(one), one.redelivered)).collect();
    assert_eq!(shown, [("blue a".to_owned(), true), ("blue b".to_owned(), true)]);
    // Another consumer may have what the first gives back.
    broker.consume(2, "kind = 'blue'", prefetch(1));
    assert_eq!(broker.told(), told(&[(2, "blue c")]));
    broker.consume(3, "", prefetch(1));
    assert_eq!(broker.told(), told(&[(3, "red a")]));
    broker.with(&again[..1], give_back);
    assert_eq!(broker.told(), told(&[(1, "blue a")]));
    broker.cancel(1);
    assert_eq!(broker.told(), told(&[]), "what is outstanding stays with its consumer");
}

#[test]
fn a_lost_connections_messages_are_there_for_others() {
    let mut broker = Broker::new(&[]);
    broker.publish(&["red a", "blue a", "blue b"]);
    broker.consume(1, "kind = 'blue'", d());
    assert_eq!(broker.told().len(), 2);
    broker.0.run(|broker, decided| broker.disconnect(ANN, decided));
    assert_eq!(broker.ready(), 3);
    broker.connect();
    broker.consume(1, "", d());
    let shown: Vec<_> =
        broker.deliveries().iter().map(|one| (body(one), one.redelivered)).collect();
    let wanted = [("red a", false), ("blue a", true), ("blue b", true)];
    assert_eq!(shown, wanted.map(|(body, flag)| (body.to_owned(), flag)));
}

#[test]
fn consumers_take_turns_and_priority_counts_among_those_who_want_it() {
    let mut broker = Broker::new(&[]);
    broker.consume(1, "kind = 'blue'", d());
    broker.consume(2, "kind <> 'green'", d());
    broker.consume(3, "kind = 'red'", Consume { priority: 5, ..d() });
    broker.publish(&["blue a", "blue b", "red a", "green a", "blue c"]);
    let got = broker.told();
    let of = |number| got.iter().filter(|(n, _)| *n == number).count();
    assert!(of(1) >= 1 && of(2) >= 1 && of(1) + of(2) == 3, "{got:?}");
    assert!(got.contains(&(3, "red a".to_owned())));
    assert_eq!(broker.ready(), 1);
}

#[test]
fn a_consumer_without_credit_finds_later_what_came_meanwhile() {
    let mut broker = Broker::new(&[]);
    broker.consume(1, "kind = 'blue'", prefetch(1));
    broker.publish(&["blue a", "red a", "blue b", "red b"]);
    let one = broker.deliveries();
    broker.publish(&["blue c"]);
    assert_eq!(broker.told(), told(&[]));
    broker.with(&one, settle);
    assert_eq!(broker.told(), told(&[(1, "blue b")]));
    assert_eq!(broker.ready(), 3);
}

#[test]
fn a_priority_queue_is_searched_in_its_order() {
    let mut broker = Broker::new(&[("x-max-priority", Value::I32(9))]);
    broker.publish(&["blue 1", "red 9", "blue 5", "red 1", "blue 9"]);
    broker.consume(1, "kind = 'blue'", prefetch(2));
    let two = broker.deliveries();
    assert_eq!(two.iter().map(body).collect::<Vec<_>>(), ["blue 9", "blue 5"]);
    broker.publish(&["blue 7", "red 8"]);
    broker.with(&two[..1], settle);
    assert_eq!(broker.told(), told(&[(1, "blue 7")]), "it came later and is above");
    broker.with(&two[1..], give_back);
    assert_eq!(broker.told(), told(&[(1, "blue 5")]));
    broker.consume(2, "", d());
    let rest = [(2, "red 9"), (2, "red 8"), (2, "blue 1"), (2, "red 1")];
    assert_eq!(broker.told(), told(&rest));
}

#[test]
fn a_filtering_consumer_empties_its_queue_of_the_rest() {
    let mut broker = Broker::new(&[]);
    broker.publish(&["red a", "blue a", "red b"]);
    broker.consume(1, "kind = 'blue'", Consume { mode: ConsumeMode::Filter, ..prefetch(1) });
    assert_eq!(broker.told(), told(&[(1, "blue a")]));
    broker.publish(&["red c"]);
    broker.consume(2, "kind = 'red'", Consume { mode: ConsumeMode::Filter, ..prefetch(1) });
    assert_eq!(broker.told(), told(&[(2, "red b")]), "red a went before it came");
    broker.publish(&["green a"]);
    broker.told();
    broker.0.run(|_, _| {});
    assert_eq!(broker.unsettled(), 4, "nobody has looked at green a, having no credit");
}

#[test]
fn a_browser_sees_all_that_is_there_and_takes_nothing() {
    let mut broker = Broker::new(&[]);
    broker.publish(&["red a", "blue a", "red b"]);
    broker.consume(1, "", prefetch(1));
    assert_eq!(broker.told(), told(&[(1, "red a")]));
    let browse = || Consume { mode: ConsumeMode::Browse, ack: AckMode::Auto, ..d() };
    broker.consume(2, "", browse());
    broker.consume(3, "kind = 'red'", browse());
    broker.publish(&["red c"]);
    let effects = broker.0.turns();
    let seen = |number| {
        let of = effects.iter().filter_map(move |(_, effect)| match effect {
            Effect::Deliver(one) if one.consumer.0 == number => Some(body(one)),
            Effect::BrowseEnd { consumer } if consumer.0 == number => Some("end".to_owned()),
            _ => None,
        });
        of.collect::<Vec<_>>()
    };
    assert_eq!(seen(2), ["red a", "blue a", "red b", "end"]);
    assert_eq!(seen(3), ["red a", "red b", "end"]);
    assert_eq!((broker.ready(), broker.unsettled()), (3, 4));
    assert_eq!(broker.0.broker.counts().consumers, 1);
    broker.cancel(2);
}

#[test]
fn no_selector_is_refused_and_the_consumer_is_not_there() {
    let mut broker = Broker::new(&[]);
    let (queue, selector) = (Text::from("q"), Text::from("a ="));
    let consume = Consume { queue, selector, ..d() };
    let said = broker.0.said(ANN, &Request::Consume(consume));
    assert!(said.starts_with("406 invalid selector: column 4: "), "{said}");
    broker.publish(&["red a"]);
    assert_eq!(broker.told(), told(&[]));
}

/// Whatever selecting consumers, others and returns do, each message is with one of them or ready.
#[test]
fn nothing_is_lost_or_doubled_in_any_order() {
    for seed in 1..=40u64 {
        let arguments = [("x-max-priority", Value::I32(9))];
        let mut broker = Broker::new(if seed % 2 == 0 { &arguments } else { &[] });
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let selectors = ["kind = 'blue'", "", "kind IN ('red', 'green')", "kind LIKE '%e%'"];
        let mut held: Vec<Delivery> = Vec::new();
        let (mut number, mut published, mut done) = (0, 0u64, 0u64);
        let mut alive: Vec<u32> = Vec::new();
        for _ in 0..200 {
            match random(8) {
                0..=2 => {
                    let kind = ["red", "blue", "green", "grey"][random(4)];
                    broker.publish(&[&format!("{kind} {}", random(10))]);
                    published += 1;
                }
                3 => {
                    number += 1;
                    alive.push(number);
                    broker.consume(number, selectors[random(4)], prefetch(1 + random(4) as u32));
                }
                4 if !alive.is_empty() => {
                    let gone = alive.swap_remove(random(alive.len()));
                    broker.cancel(gone);
                }
                5 if !held.is_empty() => {
                    let one = held.swap_remove(random(held.len()));
                    broker.with(&[one], give_back);
                }
                _ if !held.is_empty() => {
                    let one = held.swap_remove(random(held.len()));
                    broker.with(&[one], settle);
                    done += 1;
                }
                _ => {}
            }
            held.extend(broker.deliveries());
            let mut lsns: Vec<_> = held.iter().map(|one| one.lsn).collect();
            lsns.sort_unstable();
            lsns.dedup();
            assert_eq!(lsns.len(), held.len(), "seed {seed}: two hold one message");
            let ready = published - done - held.len() as u64;
            assert_eq!(broker.ready(), ready, "seed {seed}");
            let queue = broker.0.broker.queues.values().next().unwrap();
            assert_eq!(queue.ready_messages().count() as u64, ready, "seed {seed}");
        }
        number += 1;
        broker.consume(number, "", d());
        held.extend(broker.deliveries());
        assert_eq!(held.len() as u64, published - done, "seed {seed}");
    }
}
