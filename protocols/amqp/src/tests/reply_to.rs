use super::*;
use crate::reply_to::REPLY_TO;
use understudy_model::{AckMode, PropertiesView};

fn consume(no_ack: bool) -> basic::AMQPMethod {
    basic::AMQPMethod::Consume(basic::Consume {
        queue: REPLY_TO.into(),
        consumer_tag: "r".into(),
        no_ack,
        ..basic::Consume::default()
    })
}

fn request() -> Vec<u8> {
    let properties = basic::AMQPProperties::default()
        .with_correlation_id("c".into())
        .with_reply_to(REPLY_TO.into())
        .with_message_id("m".into());
    publish_frames(1, basic::Publish::default(), properties, b"?")
}

fn expecting_replies() -> Client {
    let mut client = Client::with_channel();
    client.basic(consume(true));
    let requests = client.requests();
    let [Request::DeclareQueue(declare)] = &requests[..] else { panic!() };
    assert!(declare.exclusive && declare.auto_delete && declare.name.is_empty());
    let reply = Reply::Queue { name: "amq.rabbitmq.reply-to.7".into(), messages: 0, consumers: 0 };
    client.effects([Effect::Reply { token: declare.token, result: Ok(reply) }]);
    client
}

#[test]
fn replies_come_through_a_queue_of_their_own() {
    let mut client = expecting_replies();
    let requests = client.requests();
    let [Request::Consume(asked)] = &requests[..] else { panic!() };
    assert_eq!((&asked.queue[..], asked.ack), ("amq.rabbitmq.reply-to.7", AckMode::Auto));
    client.effects([done(asked.token)]);
    let consume_ok = basic::ConsumeOk { consumer_tag: "r".into() };
    let consume_ok = AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(consume_ok));
    assert_eq!(client.frames(), [method(1, consume_ok)]);
    client.send_bytes(&request());
    let requests = client.requests();
    let [Request::Publish(publish)] = &requests[..] else { panic!() };
    let properties = PropertiesView::decode(&publish.properties).unwrap();
    assert_eq!(properties.reply_to, Some(&b"amq.rabbitmq.reply-to.7"[..]));
    assert_eq!(properties.correlation_id, Some(&b"c"[..]));
    assert_eq!(properties.message_id, Some(&b"m"[..]));
}

#[test]
fn misuse_costs_the_channel() {
    let mut client = Client::with_channel();
    client.basic(consume(false));
    let text = "PRECONDITION_FAILED - reply consumer cannot acknowledge";
    client.expect_channel_closed(406, text, (60, 20));

    let mut client = expecting_replies();
    client.basic(consume(true));
    let text = "PRECONDITION_FAILED - reply consumer already set";
    client.expect_channel_closed(406, text, (60, 20));

    let mut client = Client::with_channel();
    client.send_bytes(&request());
    let text = "PRECONDITION_FAILED - fast reply consumer does not exist";
    client.expect_channel_closed(406, text, (60, 40));
}

#[test]
fn a_cancel_before_the_queue_is_made_cancels() {
    let mut client = Client::with_channel();
    client.basic(consume(true));
    let declared = client.token();
    let cancel = basic::Cancel { consumer_tag: "r".into(), nowait: true };
    client.basic(basic::AMQPMethod::Cancel(cancel));
    client.requests();
    let reply = Reply::Queue { name: "amq.rabbitmq.reply-to.7".into(), messages: 0, consumers: 0 };
    client.effects([Effect::Reply { token: declared, result: Ok(reply) }]);
    assert!(client.requests().is_empty());
    client.basic(consume(true));
    assert!(matches!(client.requests()[..], [Request::DeclareQueue(_)]));
}
