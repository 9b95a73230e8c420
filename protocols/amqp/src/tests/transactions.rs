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

#[test]
fn a_transaction_is_bounded() {
    let options = AmqpOptions { transaction_bytes_max: 5, ..AmqpOptions::default() };
    let mut client = Client::open_with(options, 131_072);
    client.open_channel(1);
    client.send(1, select());
    client.written();
    client.send_bytes(&plain_publish(1, "q", b"body"));
    let text = "RESOURCE_ERROR - transaction is larger than 5 bytes";
    client.expect_connection_closed(506, text, (60, 40));
}
