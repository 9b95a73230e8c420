//! When the connection does not hold.

use crate::server::{Server, Store};
use crate::soon;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use understudy_client::*;

type Shared = Arc<Mutex<Store>>;

/// Two nodes with one store: what the master stored, the slave has.
async fn pair() -> (Shared, Server, Server, Client) {
    let store = Shared::default();
    let (a, b) = (Server::start(&store).await, Server::start(&store).await);
    let list = format!("failover:(tcp://{},tcp://{})?randomize=false", a.address, b.address);
    let client = Client::connect(&list).await.unwrap();
    assert_eq!(*client.state().borrow(), ConnectionState::Connected(a.address.to_string()));
    (store, a, b, client)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn unconfirmed_publishes_are_sent_again_and_stored_once() {
    let (store, a, b, client) = pair().await;
    {
        let mut store = store.lock().unwrap();
        (store.stores_max, store.is_mute) = (Some(6), true);
    }
    let mut confirmations = Vec::new();
    for index in 0..10 {
        let message = Message::to_queue("q", format!("m{index}"));
        confirmations.push(client.publish_nowait(message).await.unwrap());
    }
    until("six stored", || store.lock().unwrap().stored.len() == 6).await;
    a.kill().await;
    {
        let mut store = store.lock().unwrap();
        (store.stores_max, store.is_mute) = (None, false);
    }
    for (index, confirmation) in confirmations.into_iter().enumerate() {
        assert_eq!(soon(confirmation).await.unwrap().sequence, index as u64 + 1);
    }
    let expected: Vec<String> = (0..10).map(|index| format!("m{index}")).collect();
    assert_eq!(store.lock().unwrap().stored, expected);
    assert_eq!(*client.state().borrow(), ConnectionState::Connected(b.address.to_string()));
    assert_eq!(client.publish(Message::to_queue("q", "on")).await.unwrap().sequence, 11);
}

#[tokio::test]
async fn subscriptions_are_made_again_and_old_deliveries_are_void() {
    let (store, a, _b, client) = pair().await;
    let mut q = client.subscribe("q", SubscribeOptions::default()).await.unwrap();
    client.publish(Message::to_queue("q", "one")).await.unwrap();
    client.publish(Message::to_queue("q", "two")).await.unwrap();
    let old = q.next().await.unwrap();
    assert!(!old.redelivered());
    a.kill().await;
    until("consumed again", || store.lock().unwrap().consumes == 2).await;

    // "two" of the first connection was never read: only its redelivery is.
    let again = [q.next().await.unwrap(), q.next().await.unwrap()];
    assert_eq!(again[0].body(), "one");
    assert_eq!(again[1].body(), "two");
    assert!(again.iter().all(Delivery::redelivered));
    assert_eq!(old.settle_confirmed().await, Err(Error::Stale));
    assert_eq!(store.lock().unwrap().messages.len(), 2);
    for delivery in again {
        assert!(delivery.settle());
    }
    client.publish(Message::to_queue("q", "three")).await.unwrap();
    assert_eq!(q.next().await.unwrap().body(), "three");
    assert_eq!(store.lock().unwrap().messages.len(), 1);
}

#[tokio::test]
async fn transactions_whose_answers_are_lost_happen_once() {
    let (store, a, _b, client) = pair().await;
    client.publish(Message::to_queue("q", "in")).await.unwrap();
    let delivery = client.get("q", AckMode::Manual).await.unwrap().unwrap();
    store.lock().unwrap().is_mute = true;
    let mut settling = client.transaction();
    settling.publish(Message::to_queue("q", "out")).unwrap();
    settling.settle(&delivery);
    let mut plain = client.transaction();
    plain.publish(Message::to_queue("q", "plain")).unwrap();
    let (settling, plain) = (tokio::spawn(settling.commit()), tokio::spawn(plain.commit()));
    until("three stored", || store.lock().unwrap().stored.len() == 3).await;
    store.lock().unwrap().is_mute = false;
    a.kill().await;
    // Which of the two was handed over first is the scheduler's affair.
    let committed = [soon(settling).await.unwrap().unwrap(), soon(plain).await.unwrap().unwrap()];
    assert!(committed.iter().all(|committed| committed.already), "{committed:?}");
    let store = store.lock().unwrap();
    assert_eq!((store.stored.len(), store.repeats, store.outcomes), (3, 1, 1));
}

#[tokio::test]
async fn a_transaction_that_never_arrived_is_said_not_to_have_happened() {
    let (store, a, _b, client) = pair().await;
    client.publish(Message::to_queue("q", "in")).await.unwrap();
    let delivery = client.get("q", AckMode::Manual).await.unwrap().unwrap();
    store.lock().unwrap().is_mute = true;
    let mut settling = client.transaction();
    settling.publish(Message::to_queue("q", "out")).unwrap();
    settling.settle(&delivery);
    let settling = tokio::spawn(settling.commit());
    until("stored", || store.lock().unwrap().stored.len() == 2).await;
    {
        // As if the master had died before.
        let mut store = store.lock().unwrap();
        store.commits.clear();
        store.is_mute = false;
    }
    a.kill().await;
    assert_eq!(soon(settling).await.unwrap(), Err(Error::Stale));
    assert_eq!(store.lock().unwrap().outcomes, 1);
}

#[tokio::test]
async fn a_removal_without_an_answer_is_not_repeated() {
    // The queue may be another by then, with messages of others in it.
    let (store, a, _b, client) = pair().await;
    let asking = client.clone();
    let delete = tokio::spawn(async move { asking.delete_queue("q", Default::default()).await });
    until("asked", || store.lock().unwrap().deletes == 1).await;
    a.kill().await;
    let lost = soon(delete).await.unwrap();
    assert!(matches!(lost, Err(Error::ConnectionLost(_))), "{lost:?}");
    client.declare_queue("q", QueueOptions::default()).await.unwrap();
    assert_eq!(store.lock().unwrap().deletes, 1);
}

#[tokio::test]
async fn a_client_waits_until_a_broker_is_back() {
    let store = Shared::default();
    let server = Server::start(&store).await;
    let list = format!("failover:(tcp://{})?maxReconnectDelay=20", server.address);
    let client = Client::connect(&list).await.unwrap();
    let address = server.kill().await;
    let mut state = client.state();
    state.wait_for(|state| *state == ConnectionState::Connecting).await.unwrap();
    let confirmation = client.publish_nowait(Message::to_queue("q", "kept")).await.unwrap();
    let declared = tokio::spawn(async move {
        client.declare_queue("q", QueueOptions::default()).await.map(|queue| queue.name)
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let _server = Server::start_at(address, &store).await;
    assert_eq!(soon(confirmation).await.unwrap().sequence, 1);
    assert_eq!(&*soon(declared).await.unwrap().unwrap(), "q");
}

#[tokio::test]
async fn without_attempts_everything_ends() {
    let store = Shared::default();
    let server = Server::start(&store).await;
    let client = Client::connect(&format!("tcp://{}", server.address)).await.unwrap();
    let mut q = client.subscribe("q", SubscribeOptions::default()).await.unwrap();
    store.lock().unwrap().is_mute = true;
    let confirmation = client.publish_nowait(Message::to_queue("q", "m")).await.unwrap();
    until("stored", || store.lock().unwrap().stored.len() == 1).await;
    let address = server.kill().await;
    assert!(matches!(confirmation.await, Err(Error::NoConnection(_))));
    while q.next().await.is_some() {}
    assert!(matches!(q.error(), Some(Error::NoConnection(_))));
    let why = client.publish(Message::to_queue("q", "m")).await.unwrap_err().to_string();
    let ends = ("no connection: the connection was lost: ", "; the address allows no reconnect");
    assert!(why.starts_with(ends.0) && why.ends_with(ends.1), "{why}");
    let told = client.subscribe("q", SubscribeOptions::default()).await.unwrap_err();
    assert_eq!(told.to_string(), why);
    assert_eq!(client.purge_queue("q").await.unwrap_err().to_string(), why);

    for list in [
        format!("tcp://{address}"),
        format!("failover:(tcp://{address})?startupMaxReconnectAttempts=3"),
        format!("failover:(tcp://{address})?maxReconnectAttempts=0"),
    ] {
        let refused = timeout(Duration::from_secs(5), Client::connect(&list)).await.unwrap();
        assert!(matches!(refused, Err(Error::NoConnection(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn the_timeout_ends_the_waiting_but_not_the_client() {
    let store = Shared::default();
    let server = Server::start(&store).await;
    let list = format!("failover:(tcp://{})?timeout=60&maxReconnectDelay=20", server.address);
    let client = Client::connect(&list).await.unwrap();
    let address = server.kill().await;
    let mut state = client.state();
    state.wait_for(|state| *state == ConnectionState::Connecting).await.unwrap();
    // One after the other: the second begins to wait when the first has given up.
    for body in ["m", "n"] {
        let since = Instant::now();
        let waiting = soon(client.publish(Message::to_queue("q", body))).await;
        assert_eq!(waiting, Err(Error::Timeout));
        assert!(since.elapsed() >= Duration::from_millis(60), "{:?}", since.elapsed());
    }
    let later = soon(client.declare_queue("q", QueueOptions::default())).await;
    assert_eq!(later, Err(Error::Timeout));

    let _server = Server::start_at(address, &store).await;
    state.wait_for(|state| matches!(state, ConnectionState::Connected(_))).await.unwrap();
    assert!(client.publish(Message::to_queue("q", "again")).await.is_ok());
    assert_eq!(store.lock().unwrap().stored, ["again"]);
}

#[tokio::test]
async fn the_timeout_ends_the_waiting_while_a_broker_does_not_answer() {
    let server = Server::start(&Shared::default()).await;
    let list = format!("failover:(tcp://{})?timeout=100", server.address);
    let client = Client::connect(&list).await.unwrap();
    let address = server.kill().await;
    let _accepts_only = tokio::net::TcpListener::bind(address).await.unwrap();
    let waiting = client.publish(Message::to_queue("q", "m"));
    assert_eq!(timeout(Duration::from_secs(5), waiting).await.unwrap(), Err(Error::Timeout));
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_left() {
    let (deaf, store) =
        (tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(), Shared::default());
    let live = Server::start(&store).await;
    // Accepts, answers the handshake, and then nothing: passes on one conversation's beginning.
    let (deaf_address, live_address) = (deaf.local_addr().unwrap(), live.address);
    tokio::spawn(async move {
        let (mut client, _) = deaf.accept().await.unwrap();
        drop(deaf);
        let mut broker = tokio::net::TcpStream::connect(live_address).await.unwrap();
        let passing = tokio::io::copy_bidirectional(&mut client, &mut broker);
        let _ = timeout(Duration::from_millis(100), passing).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    });
    let list = format!(
        "failover:(tcp://{deaf_address}?wireFormat.maxInactivityDuration=400,tcp://{live_address})\
         ?randomize=false"
    );
    let client = Client::connect(&list).await.unwrap();
    let live_name = ConnectionState::Connected(live_address.to_string());
    let mut state = client.state();
    let left = state.wait_for(|state| *state == live_name);
    timeout(Duration::from_secs(5), left).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_broker_that_stands_still_is_passed_over() {
    // As of a stopped process: the kernel takes the connection, and nobody says anything.
    let still = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let live = Server::start(&Shared::default()).await;
    let list = format!(
        "failover:(tcp://{},tcp://{})?randomize=false&nested.wireFormat.maxInactivityDuration=300",
        still.local_addr().unwrap(),
        live.address
    );
    let connecting = timeout(Duration::from_secs(5), Client::connect(&list)).await;
    let client = connecting.unwrap().unwrap();
    assert_eq!(*client.state().borrow(), ConnectionState::Connected(live.address.to_string()));
}
