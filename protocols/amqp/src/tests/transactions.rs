use super::*;
use amq_protocol::protocol::{confirm, tx};
use understudy_model::DeliveryRef;

fn tx(method: tx::AMQPMethod) -> AMQPClass {
    AMQPClass::Tx(method)
}

fn commit() -> AMQPClass {
    tx(tx::AMQPMethod::Commit(tx::Commit {}))
}

fn rollback() -> AMQPClass {
    tx(tx::AMQPMethod::Rollback(tx::Rollback {}))
}

fn select() -> AMQPClass {
    tx(tx::AMQPMethod::Select(tx::Select {}))
}

fn ack(tag: u64) -> basic::AMQPMethod {
    basic::AMQPMethod::Ack(basic::Ack { delivery_tag: tag, multiple: false })
}

fn reference(consumer: ConsumerNumber, lsn: u64) -> DeliveryRef {
    DeliveryRef { consumer, queue: QueueId(Lsn(1)), lsn: Lsn(lsn) }
}

/// Transactional, with two deliveries outstanding: tags 1 and 2.
fn transactional() -> (Client, ConsumerNumber) {
    let mut client = Client::with_channel();
    let consume = basic::Consume { queue: "q".into(), ..basic::Consume::default() };
    client.basic(basic::AMQPMethod::Consume(consume));
    let requests = client.requests();
    let [Request::Consume(asked)] = &requests[..] else { panic!() };
    let consumer = asked.consumer;
    client.effects([
        done(asked.token),
        Effect::Deliver(delivery(consumer, 1, b"")),
        Effect::Deliver(delivery(consumer, 2, b"")),
    ]);
    client.forget();
    client.send(1, select());
    let answer = tx(tx::AMQPMethod::SelectOk(tx::SelectOk {}));
    assert_eq!(client.frames(), [method(1, answer)]);
    (client, consumer)
}

#[test]
fn a_commit_is_one_request() {
    let (mut client, consumer) = transactional();
    client.send_bytes(&plain_publish(1, "a", b"1"));
    client.send_bytes(&plain_publish(1, "b", b"2"));
    client.basic(ack(2));
    client.basic(basic::AMQPMethod::Reject(basic::Reject { delivery_tag: 1, requeue: true }));
    assert!(client.requests().is_empty());
    client.send(1, commit());
    let requests = client.requests();
    let [Request::Transaction(transaction)] = &requests[..] else { panic!() };
    assert_eq!(transaction.publishes.len(), 2);
    assert!(transaction.publishes.iter().all(|publish| publish.confirm.is_none()));
    assert_eq!(transaction.settles, [reference(consumer, 2)]);
    assert_eq!(transaction.returns, [reference(consumer, 1)]);
    client.effects([done(transaction.token)]);
    let answer = tx(tx::AMQPMethod::CommitOk(tx::CommitOk {}));
    assert_eq!(client.frames(), [method(1, answer)]);
    client.basic(ack(2));
    client.expect_channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 2", (60, 80));
}

#[test]
fn after_a_rollback_acks_can_be_sent_again() {
    let (mut client, consumer) = transactional();
    client.send_bytes(&plain_publish(1, "a", b"1"));
    client.basic(ack(1));
    client.send(1, rollback());
    let answer = tx(tx::AMQPMethod::RollbackOk(tx::RollbackOk {}));
    assert_eq!(client.frames(), [method(1, answer)]);
    client.basic(ack(1));
    client.send(1, commit());
    let requests = client.requests();
    let [Request::Transaction(transaction)] = &requests[..] else { panic!() };
    assert!(transaction.publishes.is_empty());
    assert_eq!(transaction.settles, [reference(consumer, 1)]);
    // It is refused: all that the channel held goes back.
    let token = transaction.token;
    client.effects([refused(token, RefusalKind::NotFound, "no exchange 'e' in vhost '/'")]);
    client.expect_channel_closed(404, "NOT_FOUND - no exchange 'e' in vhost '/'", (90, 20));
    let returned: Vec<_> = client
        .requests()
        .into_iter()
        .flat_map(|request| match request {
            Request::Return { deliveries, .. } => deliveries,
            _ => vec![],
        })
        .collect();
    assert_eq!(returned, [reference(consumer, 1), reference(consumer, 2)]);
}

#[test]
fn a_tag_is_unknown_once_it_is_acked_in_the_transaction_and_a_close_gives_it_back() {
    let (mut client, consumer) = transactional();
    client.basic(ack(1));
    client.basic(ack(1));
    client.expect_channel_closed(406, "PRECONDITION_FAILED - unknown delivery tag 1", (60, 80));
    let both = vec![reference(consumer, 1), reference(consumer, 2)];
    assert!(client.requests().contains(&Request::Return { deliveries: both, token: None }));
}

#[test]
fn transactions_and_confirms_exclude_each_other() {
    let confirm_select =
        || AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false }));
    let cases = [
        (vec![commit()], "channel is not transactional", (90, 20)),
        (vec![rollback()], "channel is not transactional", (90, 30)),
        (vec![select(), confirm_select()], "cannot switch from tx to confirm mode", (85, 10)),
        (vec![confirm_select(), select()], "cannot switch from confirm to tx mode", (90, 10)),
    ];
    for (methods, text, id) in cases {
        let mut client = Client::with_channel();
        for class in methods {
            client.written();
            client.send(1, class);
        }
        client.expect_channel_closed(406, &format!("PRECONDITION_FAILED - {text}"), id);
    }
}

const TOO_MUCH: &str =
    "RESOURCE_ERROR - transactions and incomplete messages are larger than 1000 bytes";

fn bounded() -> Client {
    let options = AmqpOptions { held_bytes_max: 1_000, ..AmqpOptions::default() };
    let mut client = Client::open_with(options, 131_072);
    client.open_channel(1);
    client
}

/// Empty messages cost memory, too.
#[test]
fn transactions_are_bounded_also_without_bodies() {
    let mut client = bounded();
    client.send(1, select());
    client.written();
    for _ in 0..100 {
        client.send_bytes(&plain_publish(1, "q", b""));
        if !client.out.write.is_empty() {
            break;
        }
    }
    client.expect_connection_closed(506, TOO_MUCH, (60, 40));
}

/// The frames of a publish of 600 bytes but for the body, and `body` bytes of that.
fn begin_publish(client: &mut Client, number: u16, body: usize) {
    let whole = plain_publish(number, "q", &[7; 600]);
    client.send_bytes(&whole[..whole.len() - 608]);
    client.send_bytes(&bytes_of(&AMQPFrame::Body(number, vec![7; body])));
}

#[test]
fn what_ends_is_not_counted_any_more() {
    let mut client = bounded();
    client.send(1, select());
    client.open_channel_after(2);
    for n in 0..40 {
        client.send_bytes(&plain_publish(1, "q", b"0123456789"));
        client.send(1, if n % 2 == 0 { rollback() } else { commit() });
        begin_publish(&mut client, 2, 500);
        client.send_bytes(&bytes_of(&AMQPFrame::Body(2, vec![7; 100])));
    }
    for number in 3..40 {
        client.open_channel_after(number);
        client.send(number, select());
        client.send_bytes(&plain_publish(number, "q", b""));
        client.send(number, channel_close());
        client.forget();
    }
    assert!(client.frames().is_empty(), "the connection is closed");
}

#[test]
fn incomplete_bodies_are_bounded_over_all_channels() {
    let mut client = bounded();
    for number in 2..5 {
        client.open_channel(number);
        begin_publish(&mut client, number, 400);
    }
    client.expect_connection_closed(506, TOO_MUCH, (60, 40));
}
