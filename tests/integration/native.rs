//! The native client against real nodes: commits whose answers are lost, a switchover, TLS.

use crate::certificates::{CLIENT, Tls};
use crate::support::wire::{Way, Wire};
use crate::support::{Node, Pair, free_address};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use understudy_client::{
    AckMode, Client, Committed, ConnectOptions, ConnectionState, Delivery, Error, Message,
    Properties, QueueOptions, SubscribeOptions, TlsOptions, Transaction,
};

async fn connect(nodes: [&str; 2]) -> Client {
    let list = format!("failover:(tcp://{},tcp://{})?randomize=false", nodes[0], nodes[1]);
    Client::connect(&list).await.unwrap()
}

/// One message in `in`, taken; a transaction that settles it and publishes two to `out`.
async fn transfer(client: &Client) -> Transaction {
    for queue in ["in", "out"] {
        client.declare_queue(queue, QueueOptions::default()).await.unwrap();
    }
    client.publish(Message::to_queue("in", "order")).await.unwrap();
    let order = client.get("in", AckMode::Manual).await.unwrap().unwrap();
    let mut transaction = client.transaction();
    transaction.settle(&order);
    for body in ["bill", "parcel"] {
        transaction.publish(Message::to_queue("out", body)).unwrap();
    }
    transaction
}

async fn take_all(client: &Client, queue: &str) -> Vec<Delivery> {
    let mut all = Vec::new();
    while let Some(delivery) = client.get(queue, AckMode::Manual).await.unwrap() {
        all.push(delivery);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_died_with_the_master_is_known_to_the_new_one() {
    let mut pair = Pair::in_sync();
    let wire = Wire::to(&pair.master.ports.native);
    let client = connect([&wire.address, &pair.slave.ports.native]).await;
    let transaction = transfer(&client).await;
    wire.hold_back(Way::FromTarget);
    let commit = tokio::spawn(transaction.commit());
    tokio::task::block_in_place(|| {
        pair.slave.wait("committed there", |status| status["counts"]["messages"] == 2);
        assert!(!commit.is_finished(), "its answer was to be lost");
        pair.master.kill();
        // What was held back is lost with the connection.
        wire.cut();
        wire.heal();
    });
    let committed = commit.await.unwrap().unwrap();
    assert_eq!(committed, Committed { commit: 2, already: true });
    let bodies: Vec<_> = take_all(&client, "out").await.iter().map(|d| d.body().clone()).collect();
    assert_eq!(bodies, ["bill", "parcel"]);
    assert!(take_all(&client, "in").await.is_empty(), "the order was settled with it");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_did_not_reach_the_master_is_known_not_to_have_happened() {
    let mut pair = Pair::in_sync();
    let wire = Wire::to(&pair.master.ports.native);
    let client = connect([&wire.address, &pair.slave.ports.native]).await;
    let settling = transfer(&client).await;
    let mut plain = client.transaction();
    plain.publish(Message::to_queue("out", "letter")).unwrap();
    wire.cut();
    let (settling, plain) = (tokio::spawn(settling.commit()), tokio::spawn(plain.commit()));
    tokio::task::block_in_place(|| {
        pair.master.kill();
        // Now the client sees that its connection is gone.
        wire.heal();
    });
    assert_eq!(settling.await.unwrap(), Err(Error::Stale));
    assert!(!plain.await.unwrap().unwrap().already);
    let orders = take_all(&client, "in").await;
    assert!(orders.len() == 1 && orders[0].redelivered());
    assert_eq!(take_all(&client, "out").await.len(), 1);
    client.close().await;
}

/// A client at work while the roles are exchanged: how long it was without an answer.
async fn gap_of_a_switchover(pair: &Pair, client: &Client, first: u32) -> (Duration, u32) {
    let directory = pair.directory.path().join(pair.master.name);
    let switchover = tokio::task::spawn_blocking(move || {
        Command::new(env!("CARGO_BIN_EXE_understudy"))
            .args(["switchover", "--data-dir"])
            .arg(directory)
            .status()
            .unwrap()
    });
    let (mut number, mut longest, mut last) = (first, Duration::ZERO, Instant::now());
    while !switchover.is_finished() || number < first + 100 {
        let message = Message::to_queue("orders", number.to_be_bytes().to_vec());
        client.publish(message).await.unwrap();
        longest = longest.max(last.elapsed());
        last = Instant::now();
        number += 1;
    }
    assert!(switchover.await.unwrap().success());
    (longest, number)
}

/// A publisher and a consumer at work over three switchovers; the client's list holds the master
/// alone, so that where to go is what the master says. `places`: of the nodes, as they tell them.
async fn follows_switchovers(mut pair: Pair, address: &str, places: [String; 2]) {
    const LIMIT: Duration = Duration::from_millis(150);
    let client = Client::connect(&format!("failover:({address})")).await.unwrap();
    client.declare_queue("orders", QueueOptions::default()).await.unwrap();
    let mut orders = client.subscribe("orders", SubscribeOptions::default()).await.unwrap();
    let consumer = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(delivery) = orders.next().await {
            let number = u32::from_be_bytes(delivery.body()[..].try_into().unwrap());
            if number == u32::MAX {
                delivery.settle_confirmed().await.unwrap();
                break;
            }
            // What was settled on its way to the connection's end comes again, flagged.
            let known = seen.last().is_some_and(|last| *last >= number);
            assert!(!known || delivery.redelivered(), "{number} came again without a flag");
            if !known {
                seen.push(number);
            }
            delivery.settle();
        }
        seen
    });
    let (mut gaps, mut next) = (Vec::new(), 0);
    for place in [1, 0, 1].map(|node| &places[node]) {
        let (gap, after) = gap_of_a_switchover(&pair, &client, next).await;
        next = after;
        gaps.push(gap);
        assert_eq!(*client.state().borrow(), ConnectionState::Connected(place.clone()));
        std::mem::swap(&mut pair.master, &mut pair.slave);
        tokio::task::block_in_place(|| pair.master.wait_in_sync());
    }
    client.publish(Message::to_queue("orders", u32::MAX.to_be_bytes().to_vec())).await.unwrap();
    let seen = consumer.await.unwrap();
    assert!(seen.iter().copied().eq(0..next), "each once, in order");
    // The machine may be busy with other tests once, but not each time.
    assert!(gaps.iter().min().unwrap() < &LIMIT, "{gaps:?}");
    client.close().await;
    pair.master.wait("empty", |status| status["counts"]["messages"] == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_takes_native_clients_along_at_once() {
    let pair = Pair::in_sync();
    let places = [&pair.master, &pair.slave].map(|node| node.ports.native.clone());
    let address = format!("tcp://{}", pair.master.ports.native);
    follows_switchovers(pair, &address, places).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_takes_clients_under_tls_along_under_tls() {
    let mut pair = Pair::new("", "");
    let directory = pair.directory.path().to_owned();
    // The files of the second are those of both.
    let [one, two] = [&mut pair.master, &mut pair.slave].map(|node| Tls::make(&directory, node));
    // The master tells what it listens on, the slave what it was given.
    let named = format!("localhost:{}", two.native_port);
    let clear = &pair.slave.ports.native;
    let uris = format!("client_uris = \"tcp://{clear},ssl://{named}\"\n");
    pair.slave.replication(&uris);
    pair.start_in_sync();
    let [ca, certificate, key] = two.client_files.each_ref().map(|file| file.display());
    // The login is the certificate's: on the way to the other node, too.
    let address = format!(
        "ssl://:@127.0.0.1:{}?cacertfile={ca}&certfile={certificate}&keyfile={key}",
        one.native_port
    );
    follows_switchovers(pair, &address, [format!("127.0.0.1:{}", one.native_port), named]).await;
}

/// Nodes that listen on addresses and have certificates for names, and were told no `client_uris`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_under_tls_is_not_kept_by_a_place_that_no_certificate_is_for() {
    let mut pair = Pair::new("", "");
    let directory = pair.directory.path().to_owned();
    let [one, two] = [&mut pair.master, &mut pair.slave].map(|node| Tls::make(&directory, node));
    two.sign_for("node", "both", &["localhost"]);
    pair.start_in_sync();
    let ca = two.client_files[0].display();
    let [one, two] = [&one, &two].map(|tls| format!("localhost:{}", tls.native_port));
    let list = format!("failover:(ssl://{one},ssl://{two})?randomize=false&nested.cacertfile={ca}");
    let client = Client::connect(&list).await.unwrap();
    client.declare_queue("orders", QueueOptions::default()).await.unwrap();
    let (gap, _) = gap_of_a_switchover(&pair, &client, 0).await;
    assert_eq!(*client.state().borrow(), ConnectionState::Connected(two));
    // A master on its way is waited for longer.
    assert!(gap < Duration::from_secs(1), "{gap:?}");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_speaks_tls_and_its_certificate_is_its_login() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    let tls = Tls::make(directory.path(), &mut node);
    node.start_serving();
    let [ca, certificate, key] = tls.client_files.clone();
    let address = format!("ssl://localhost:{}?cacertfile={}", tls.native_port, ca.display());
    let client = Client::connect(&address).await.unwrap();
    client.declare_queue("secret", QueueOptions::default()).await.unwrap();
    let body = vec![7; 300_000];
    let batch = (0..20).map(|_| Message::to_queue("secret", body.clone()));
    for confirmation in client.publish_batch(batch).await.unwrap() {
        confirmation.await.unwrap();
    }
    let mut secrets = client.subscribe("secret", SubscribeOptions::default()).await.unwrap();
    for _ in 0..20 {
        let delivery = secrets.next().await.unwrap();
        assert_eq!(delivery.body(), &body);
        delivery.settle();
    }
    client.close().await;

    let files =
        TlsOptions { ca_file: Some(ca), certificate_file: Some(certificate), key_file: Some(key) };
    let options = ConnectOptions {
        user: Some("".into()),
        password: Some("".into()),
        tls: files,
        ..ConnectOptions::default()
    };
    let plain = format!("ssl://127.0.0.1:{}", tls.native_port);
    let client = Client::connect_with(&plain, options.clone()).await.unwrap();
    client.declare_queue("of orders", QueueOptions::default()).await.unwrap();
    // The user of the certificate, and no other.
    let properties = Properties { user_id: Some(CLIENT.into()), ..Properties::default() };
    let message = Message::to_queue("of orders", "").properties(&properties);
    client.publish(message).await.unwrap();
    client.close().await;

    let wrong_name = format!("{plain}?server_name_indication=elsewhere");
    let failure = Client::connect_with(&wrong_name, options.clone()).await.unwrap_err();
    assert!(matches!(&failure, Error::Untrusted(why) if why.contains("certificate")), "{failure}");
    // Nor is it tried again and again.
    let list = format!("failover:({wrong_name},ssl://{})", free_address());
    let failure = Client::connect_with(&list, options.clone()).await.unwrap_err();
    assert!(matches!(&failure, Error::Untrusted(_)), "{failure}");
    let no_tls_there = format!("ssl://{}", node.ports.native);
    let failure = Client::connect_with(&no_tls_there, options).await.unwrap_err();
    assert!(matches!(failure, Error::Untrusted(_) | Error::NoConnection(_)), "{failure}");
    let failure = Client::connect(&plain).await.unwrap_err();
    assert!(matches!(failure, Error::Tls(_)), "{failure}");
}

#[test]
fn the_command_line_warns_of_what_it_does_not_know_in_an_address() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let list = format!("failover:(tcp://{}?soft=1)?shuffle=true&backup=true", node.ports.native);
    let run = |verb: &str, arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_understudy"))
            .args([verb, "--url", &list, "--queue", "orders"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for said in [run("publish", &["tea"]), run("consume", &["--ack", "--count", "1"])] {
        assert!(said.contains("unknown option in the address option=soft"), "{said}");
        assert!(said.contains("unknown option in the address option=shuffle"), "{said}");
        assert!(said.contains("has no effect here option=backup"), "{said}");
        assert_eq!(said.lines().count(), 3, "{said}");
    }
}

/// A script must learn that a line was not stored, or that no message comes any more, while its end
/// of the pipe is still open.
#[test]
fn the_command_line_ends_with_a_code_that_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.start_serving();
    let place = node.ports.native.clone();
    let start = |verb: &str, url: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_understudy"));
        command.args([verb, "--url", url, "--queue", "orders"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let ends = |mut child: Child, code: i32, words: &str| {
        // Held until the end: nothing but the failure may end it.
        let input = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words) && !said.contains("secret"), "{words}: {said}");
    };
    let wrong_login = format!("failover:(tcp://guest:secret@{place})");
    ends(start("publish", &wrong_login), 77, "login refused");
    ends(start("publish", "failover:(tcp://one)?randomize=maybe"), 64, "randomize");
    let once = format!("failover:(tcp://{place})?maxReconnectAttempts=0");
    ends(start("consume", &once), 65, "no queue 'orders'");

    let mut publisher = start("publish", &once);
    writeln!(publisher.stdin.as_mut().unwrap(), "tea").unwrap();
    node.wait("stored", |status| status["counts"]["messages"] == 1);
    let mut consumer = start("consume", &once);
    let mut bodies = BufReader::new(consumer.stdout.as_mut().unwrap());
    bodies.read_line(&mut String::new()).unwrap();
    node.kill();
    writeln!(publisher.stdin.as_mut().unwrap(), "lost").unwrap();
    // Whether the client knew of the loss before it had the line is not told apart.
    ends(publisher, 69, "");
    ends(consumer, 69, "no reconnect");
}
