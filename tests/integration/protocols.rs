//! A message published through one protocol is consumed through any other.

use crate::support::Node;
use crate::support::stomp::Stomp;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use understudy_client::{
    Client, Message, Properties, QueueOptions, SubscribeOptions, Table, Text, Value,
};

async fn amqp(address: &str) -> (Connection, Channel) {
    let uri = format!("amqp://guest:guest@{address}/%2f");
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_and_properties_cross_all_protocols() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let (_connection, channel) = amqp(&node.ports.amqp).await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("cross".into(), durable, FieldTable::default()).await.unwrap();
    let native = Client::connect(&format!("tcp://{}", node.ports.native)).await.unwrap();

    // AMQP to STOMP.
    let mut headers = FieldTable::default();
    headers.insert("colour".into(), AMQPValue::LongString(LongString::from("green")));
    let properties = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_correlation_id("c-1".into())
        .with_priority(4)
        .with_headers(headers);
    let published = channel
        .basic_publish(
            "".into(),
            "cross".into(),
            BasicPublishOptions::default(),
            b"one",
            properties,
        )
        .await
        .unwrap();
    assert!(published.await.unwrap().is_ack());
    let stomp_address = node.ports.stomp.clone();
    let message = tokio::task::spawn_blocking(move || {
        let mut stomp = Stomp::connect(&stomp_address);
        stomp.send("SUBSCRIBE\nid:1\ndestination:/queue/cross\nack:auto\n\n");
        let message = stomp.receive();
        // STOMP to native, by way of the same queue.
        stomp.send("UNSUBSCRIBE\nid:1\nreceipt:u\n\n");
        assert_eq!(stomp.receive().command, "RECEIPT");
        stomp.send(
            "SEND\ndestination:/queue/cross\npersistent:true\ncorrelation-id:c-2\n\
             content-type:text/html\ncolour:red\nreceipt:s\n\ntwo",
        );
        assert_eq!(stomp.receive().command, "RECEIPT");
        message
    })
    .await
    .unwrap();
    assert_eq!(message.body, "one");
    assert_eq!(message.header("colour"), "green");
    assert_eq!(message.header("correlation-id"), "c-1");
    assert_eq!(message.header("content-type"), "text/plain");
    assert_eq!(message.header("priority"), "4");

    let mut cross = native.subscribe("cross", SubscribeOptions::default()).await.unwrap();
    let delivery = cross.next().await.unwrap();
    let properties = delivery.properties().unwrap();
    assert_eq!(&delivery.body()[..], b"two");
    assert_eq!(properties.correlation_id.as_deref(), Some("c-2"));
    assert_eq!(properties.content_type.as_deref(), Some("text/html"));
    assert_eq!(properties.delivery_mode, Some(2));
    let headers = properties.headers.unwrap();
    assert_eq!(headers.get("colour").and_then(Value::as_str), Some("red"));
    delivery.settle_confirmed().await.unwrap();
    drop(cross);

    // Native to AMQP.
    let mut headers = Table::default();
    headers.push("colour", Value::text("blue"));
    let properties = Properties {
        headers: Some(headers),
        message_id: Some(Text::from_static("m-3")),
        ..Properties::default()
    };
    let message = Message::to_queue("cross", "three").properties(&properties);
    native.publish(message).await.unwrap();
    let got = channel.basic_get("cross".into(), BasicGetOptions { no_ack: true }).await.unwrap();
    let got = got.expect("the native client's message").delivery;
    assert_eq!(got.data, b"three");
    assert_eq!(got.properties.message_id(), &Some(ShortString::from("m-3")));
    let headers = got.properties.headers().clone().unwrap();
    let blue = AMQPValue::LongString(LongString::from("blue"));
    assert_eq!(headers.inner().get("colour"), Some(&blue));
    native.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_native_client_survives_a_takeover_without_loss_or_duplicate() {
    let mut pair = crate::support::Pair::in_sync();
    let (one, two) = (pair.master.ports.native.clone(), pair.slave.ports.native.clone());
    let uri = format!("failover:(tcp://{one},tcp://{two})?randomize=false&maxReconnectDelay=50");
    let client = Client::connect(&uri).await.unwrap();
    client.declare_queue("native", QueueOptions::default()).await.unwrap();
    let mut orders = client.subscribe("native", SubscribeOptions::default()).await.unwrap();
    let publisher = client.clone();
    let publishing = tokio::spawn(async move {
        let mut confirmations = Vec::new();
        for number in 0..5_000u32 {
            let message = Message::to_queue("native", number.to_be_bytes().to_vec());
            confirmations.push(publisher.publish_nowait(message).await.unwrap());
        }
        for confirmation in confirmations {
            confirmation.await.unwrap();
        }
    });
    let mut seen = std::collections::BTreeMap::<u32, u32>::new();
    let mut killed = false;
    while seen.len() < 5_000 {
        let delivery = orders.next().await.expect("the subscription goes on");
        let number = u32::from_be_bytes(delivery.body()[..].try_into().unwrap());
        // What was settled over the dead connection may come again; it is flagged then.
        let count = seen.entry(number).or_default();
        *count += 1;
        assert!(*count == 1 || delivery.redelivered(), "{number} came again without a flag");
        delivery.settle();
        if seen.len() == 1_000 && !killed {
            killed = true;
            tokio::task::block_in_place(|| pair.master.kill());
        }
    }
    publishing.await.unwrap();
    drop(orders);
    // Each message was stored once: nothing is left, and no second copy came unflagged.
    client.close().await;
    pair.slave.wait("empty", |status| status["counts"]["messages"] == 0);
}

#[test]
fn activemqs_clients_meet_on_topics_lists_and_temporary_queues() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.configure("[stomp]\ndialect = \"activemq\"\n");
    node.start_serving();
    let mut server = Stomp::connect(&node.ports.stomp);
    let mut client = Stomp::connect(&node.ports.stomp);
    server.send("SUBSCRIBE\nid:1\ndestination:/topic/jobs.>\nreceipt:s\n\n");
    assert_eq!(server.receive().command, "RECEIPT");
    client.send("SUBSCRIBE\nid:1\ndestination:/temp-queue/answers\n\n");
    client.send("SUBSCRIBE\nid:2\ndestination:/queue/jobs/log\n\n");
    client.send(
        "SEND\ndestination:/topic/jobs.today.first,/queue/jobs/log\n\
         reply-to:/temp-queue/answers\nreceipt:r\n\nwork",
    );
    let mut kinds = [client.receive(), client.receive()].map(|frame| frame.command);
    kinds.sort();
    assert_eq!(kinds, ["MESSAGE", "RECEIPT"]);

    let job = server.receive();
    assert_eq!(job.header("destination"), "/topic/jobs.today.first");
    let reply_to = job.header("reply-to").to_owned();
    server.send(&format!("SEND\ndestination:{reply_to}\n\ndone"));
    let answer = client.receive();
    assert_eq!(answer.header("subscription"), "1");
    assert_eq!(answer.header("destination"), "/temp-queue/answers");
}

#[test]
fn activemqs_subscription_reads_a_list_and_leaves_what_it_did_not_ack() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.configure("[stomp]\ndialect = \"activemq\"\n");
    node.start_serving();
    let mut reader = Stomp::open(&node.ports.stomp);
    reader.send("CONNECT\naccept-version:1.2\nhost:mq.example\nlogin:guest\npasscode:guest\n\n");
    assert_eq!(reader.receive().command, "CONNECTED", "its vhost is /");
    reader.send("SEND\ndestination:a\nreceipt:r\n\nwaits");
    assert_eq!(reader.receive().command, "RECEIPT");
    reader.send(
        "SUBSCRIBE\nid:1\ndestination:/queue/a,b,/topic/c.>\nack:client-individual\n\
         receipt:s\n\n",
    );
    assert_eq!(reader.receive().command, "RECEIPT", "before what waits");
    let waited = reader.receive();
    assert_eq!((waited.header("destination"), &*waited.body), ("/queue/a", "waits"));
    reader.send("SEND\ndestination:/queue/b\n\nacked");
    let message = reader.receive();
    assert_eq!((message.header("subscription"), &*message.body), ("1", "acked"));
    reader.send(&format!("ACK\nid:{}\n\n", message.header("ack")));
    reader.send("SEND\ndestination:/topic/c.d/e\n\nlast");
    assert_eq!(reader.receive().header("destination"), "/topic/c.d/e");
    reader.send("UNSUBSCRIBE\nid:1\nreceipt:u\n\n");
    assert_eq!(reader.receive().command, "RECEIPT");

    let mut other = Stomp::connect(&node.ports.stomp);
    other.send("SUBSCRIBE\nid:1\ndestination:/queue/b,/queue/a\n\n");
    let again = other.receive();
    assert_eq!((again.header("redelivered"), &*again.body), ("true", "waits"));
}

/// Names of temporary queues are made of it, and who knows one may send there.
#[test]
fn a_session_id_tells_nothing_of_another_connections() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let mut random_parts = [(); 2].map(|()| {
        let mut stomp = Stomp::open(&node.ports.stomp);
        stomp.send("CONNECT\naccept-version:1.2\nlogin:guest\npasscode:guest\n\n");
        let session = stomp.receive().header("session").to_owned();
        session["session-".len()..][..16].to_owned()
    });
    random_parts.sort();
    assert_ne!(random_parts[0], random_parts[1]);
}

/// The table of docs/message-mapping.md: STOMP's header and the value that it has on both sides.
const MAPPED: [(&str, &str); 14] = [
    ("content-type", "text/x"),
    ("content-encoding", "gzip"),
    ("persistent", "true"),
    ("priority", "7"),
    ("correlation-id", "c 1"),
    ("reply-to", "/queue/answers"),
    ("expiration", "60000"),
    ("amqp-message-id", "m"),
    ("timestamp", "5"),
    ("type", "t"),
    ("user-id", "guest"),
    ("app-id", "a"),
    ("cluster-id", "k"),
    ("mine", "é"),
];

fn mapped_properties() -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("mine".into(), AMQPValue::LongString(LongString::from("é")));
    BasicProperties::default()
        .with_content_type("text/x".into())
        .with_content_encoding("gzip".into())
        .with_delivery_mode(2)
        .with_priority(7)
        .with_correlation_id("c 1".into())
        .with_reply_to("/queue/answers".into())
        .with_expiration("60000".into())
        .with_message_id("m".into())
        .with_timestamp(5)
        .with_type("t".into())
        .with_user_id("guest".into())
        .with_app_id("a".into())
        .with_cluster_id("k".into())
        .with_headers(headers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_property_crosses_between_stomp_and_amqp_both_ways() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let (_connection, channel) = amqp(&node.ports.amqp).await;
    let address = node.ports.stomp.clone();
    let mut stomp = tokio::task::spawn_blocking(move || {
        let mut stomp = Stomp::connect(&address);
        let headers: Vec<String> = MAPPED.iter().map(|(n, v)| format!("{n}:{v}\n")).collect();
        let headers = headers.concat();
        stomp.send(&format!("SEND\ndestination:/queue/mapped\nreceipt:s\n{headers}\nfrom stomp"));
        assert_eq!(stomp.receive().command, "RECEIPT");
        stomp
    })
    .await
    .unwrap();
    let got = channel.basic_get("mapped".into(), BasicGetOptions { no_ack: true }).await.unwrap();
    let got = got.expect("a message");
    assert_eq!(got.delivery.data, b"from stomp");
    assert_eq!(got.delivery.properties, mapped_properties());

    let options = BasicPublishOptions::default();
    let published = channel
        .basic_publish("".into(), "mapped".into(), options, b"from amqp", mapped_properties())
        .await
        .unwrap();
    assert!(published.await.unwrap().is_ack());
    let message = tokio::task::spawn_blocking(move || {
        stomp.send("SUBSCRIBE\nid:1\ndestination:/queue/mapped\nack:auto\n\n");
        stomp.receive()
    })
    .await
    .unwrap();
    assert_eq!(message.body, "from amqp");
    for (name, value) in MAPPED {
        assert_eq!(message.header(name), value, "{name}");
    }
}
