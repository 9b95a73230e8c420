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

/// The queue that replies come through.
fn expecting_replies(client: &mut Client) -> Text {
    client.basic(consume(true));
    let requests = client.requests();
    let [Request::DeclareQueue(declare), Request::Consume(asked)] = &requests[..] else { panic!() };
    assert!(declare.exclusive && declare.auto_delete && declare.named_by_frontend);
    assert!(declare.name.starts_with("amq.rabbitmq.reply-to.") && asked.queue == declare.name);
    assert_eq!(asked.ack, AckMode::Auto);
    let name = declare.name.clone();
    let reply = Reply::Queue { name: name.clone(), messages: 0, consumers: 0 };
    client.effects([Effect::Reply { token: declare.token, result: Ok(reply) }, done(asked.token)]);
    let consume_ok = basic::ConsumeOk { consumer_tag: "r".into() };
    let consume_ok = AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(consume_ok));
    assert_eq!(client.frames(), [method(1, consume_ok)]);
    name
}

fn reply_to(client: &mut Client) -> String {
    let requests = client.requests();
    let Some(Request::Publish(publish)) = requests.last() else { panic!() };
    let properties = PropertiesView::decode(&publish.properties).unwrap();
    assert_eq!(properties.correlation_id, Some(&b"c"[..]));
    assert_eq!(properties.message_id, Some(&b"m"[..]));
    String::from_utf8(properties.reply_to.unwrap().to_vec()).unwrap()
}

#[test]
fn replies_come_through_a_queue_of_their_own() {
    let mut client = Client::with_channel();
    let queue = expecting_replies(&mut client);
    client.send_bytes(&request());
    assert_eq!(reply_to(&mut client), &queue[..]);
}

#[test]
fn a_request_may_follow_without_waiting() {
    let mut client = Client::with_channel();
    client.basic(consume(true));
    client.send_bytes(&request());
    assert!(reply_to(&mut client).starts_with("amq.rabbitmq.reply-to."));
}

#[test]
fn misuse_costs_the_channel() {
    let mut client = Client::with_channel();
    client.basic(consume(false));
    let text = "PRECONDITION_FAILED - reply consumer cannot acknowledge";
    client.expect_channel_closed(406, text, (60, 20));

    let mut client = Client::with_channel();
    expecting_replies(&mut client);
    client.basic(consume(true));
    let text = "PRECONDITION_FAILED - reply consumer already set";
    client.expect_channel_closed(406, text, (60, 20));

    let mut client = Client::with_channel();
    client.send_bytes(&request());
    let text = "PRECONDITION_FAILED - fast reply consumer does not exist";
    client.expect_channel_closed(406, text, (60, 40));
}

#[test]
fn a_cancel_makes_room_for_another() {
    let mut client = Client::with_channel();
    let queue = expecting_replies(&mut client);
    let cancel = basic::Cancel { consumer_tag: "r".into(), nowait: true };
    client.basic(basic::AMQPMethod::Cancel(cancel));
    client.requests();
    assert_ne!(expecting_replies(&mut client), queue);
}
