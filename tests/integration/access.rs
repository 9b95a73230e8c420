//! Users, permissions and policies as clients of three protocols meet them, on a real process.

use crate::control::run;
use crate::support::Node;
use crate::support::stomp::Stomp;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use std::path::PathBuf;
use understudy_client::{Client, QueueOptions};

struct Fixture {
    node: Node,
    data: PathBuf,
    _directory: tempfile::TempDir,
}

impl Fixture {
    fn start(verbs: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::standalone(directory.path());
        node.start_serving();
        let data = directory.path().join("standalone");
        let fixture = Self { node, data, _directory: directory };
        verbs.iter().for_each(|verb| fixture.run(verb));
        fixture
    }

    fn run(&self, line: &str) {
        let (code, said) = run(&self.data, line);
        assert_eq!(code, 0, "{line}: {said}");
    }

    async fn amqp(&self, login: &str, vhost: &str) -> lapin::Result<Connection> {
        let uri = format!("amqp://{login}@{}/{vhost}", self.node.ports.amqp);
        Connection::connect(&uri, ConnectionProperties::default()).await
    }
}

const ANN: &[&str] = &[
    "add_user ann secret",
    "set_permissions ann '^(ann|amq\\.gen)' '^(ann|amq\\.default)' '^ann'",
    "add_vhost closed",
];

fn declare(name: &str) -> (ShortString, QueueDeclareOptions, FieldTable) {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    (name.into(), options, FieldTable::default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqp_clients_are_held_to_their_permissions() {
    let fixture = Fixture::start(ANN);
    // An Argon2id user, by both mechanisms.
    for mechanism in ["plain", "amqplain"] {
        let vhost = format!("%2f?auth_mechanism={mechanism}");
        let connection = fixture.amqp("ann:secret", &vhost).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let (name, options, arguments) = declare("ann.orders");
        channel.queue_declare(name, options, arguments).await.unwrap();
        let (name, options, arguments) = declare("orders");
        let refused = channel.queue_declare(name, options, arguments).await.unwrap_err();
        let wanted = "access to queue 'orders' in vhost '/' refused for user 'ann'";
        assert!(format!("{refused:?}").contains(wanted), "{refused:?}");
        assert!(fixture.amqp("ann:wrong", &vhost).await.is_err());
    }
    let refused = fixture.amqp("ann:secret", "closed").await.unwrap_err();
    let wanted = "access to vhost 'closed' refused for user 'ann'";
    assert!(format!("{refused:?}").contains(wanted), "{refused:?}");
    let refused = fixture.amqp("ann:secret", "none").await.unwrap_err();
    assert!(format!("{refused:?}").contains("vhost none not found"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_id_is_checked_and_an_impersonator_is_not() {
    let fixture = Fixture::start(ANN);
    let somebody = BasicProperties::default().with_user_id("somebody".into());
    for tagged in [false, true] {
        if tagged {
            fixture.run("set_user_tags ann impersonator");
        }
        let connection = fixture.amqp("ann:secret", "%2f").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let options = BasicPublishOptions::default();
        let (exchange, key) = ("".into(), "ann.q".into());
        let published =
            channel.basic_publish(exchange, key, options, b"x", somebody.clone()).await.unwrap();
        match published.await {
            Ok(confirm) => assert!(tagged && confirm.is_ack()),
            Err(error) => {
                let wanted = "user_id property set to 'somebody' but authenticated user was 'ann'";
                assert!(!tagged && format!("{error:?}").contains(wanted), "{error:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_user_or_a_vhost_closes_its_connections() {
    let fixture = Fixture::start(ANN);
    fixture.run("set_permissions -p closed ann .* .* .*");
    for (vhost, verb) in [("closed", "delete_vhost closed"), ("%2f", "delete_user ann")] {
        let connection = fixture.amqp("ann:secret", vhost).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let (_, listed) = run(&fixture.data, "list_connections -s user state");
        assert_eq!(listed, "ann\trunning\n");
        fixture.run(verb);
        // The close is on its way when the verb is answered; an operation meets it at the latest.
        let until = std::time::Instant::now() + crate::support::PATIENCE;
        while connection.status().connected() {
            let (name, options, arguments) = declare("ann.q");
            let _ = channel.queue_declare(name, options, arguments).await;
            assert!(std::time::Instant::now() < until, "still connected");
        }
        assert!(fixture.amqp("ann:secret", vhost).await.is_err());
    }
}

#[test]
fn stomp_and_native_clients_are_held_to_them_too() {
    let fixture = Fixture::start(ANN);
    let connect = |host: &str| {
        let mut stomp = Stomp::open(&fixture.node.ports.stomp);
        stomp.send(&format!(
            "CONNECT\naccept-version:1.2\nhost:{host}\nlogin:ann\npasscode:secret\n\n"
        ));
        let answer = stomp.receive();
        (stomp, answer)
    };
    let (_, refused) = connect("closed");
    assert_eq!(refused.command, "ERROR");
    assert!(format!("{refused:?}").contains("Virtual host 'closed' access denied"), "{refused:?}");
    let (mut stomp, connected) = connect("/");
    assert_eq!(connected.command, "CONNECTED", "{connected:?}");
    stomp.send("SEND\ndestination:/queue/ann.s\nreceipt:1\n\nx");
    assert_eq!(stomp.receive().command, "RECEIPT");
    stomp.send("SEND\ndestination:/queue/other\nreceipt:2\n\nx");
    let refused = stomp.receive();
    assert_eq!(refused.command, "ERROR", "{refused:?}");
    assert!(format!("{refused:?}").contains("refused for user 'ann'"), "{refused:?}");
    let url = format!("tcp://ann:secret@{}", fixture.node.ports.native);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&url).await.unwrap();
        client.declare_queue("ann.n", QueueOptions::default()).await.unwrap();
        let refused = client.declare_queue("other", QueueOptions::default()).await.unwrap_err();
        assert!(refused.to_string().contains("refused for user 'ann'"), "{refused}");
    });
}

#[test]
fn ten_thousand_queues_are_listed_page_by_page() {
    use std::fmt::Write;
    let fixture = Fixture::start(&[]);
    let mut stomp = Stomp::connect(&fixture.node.ports.stomp);
    let mut frames = String::new();
    for number in 0..10_000 {
        let _ = write!(frames, "SEND\ndestination:/queue/q{number:05}\n\nx\0");
    }
    stomp.send(&format!("{frames}SEND\ndestination:/queue/end\nreceipt:end\n\nx"));
    assert_eq!(stomp.receive().command, "RECEIPT");
    let (code, listed) = run(&fixture.data, "list_queues -s");
    assert_eq!(code, 0);
    assert_eq!(listed.lines().count(), 10_001);
    let wanted = |n: &usize| listed.contains(&format!("q{n:05}\t1\n"));
    assert!([0, 499, 500, 501, 9_999].iter().all(wanted));
}
