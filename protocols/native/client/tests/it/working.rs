//! While the connection holds.

use crate::server::{Server, Store};
use crate::soon;
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use understudy_client::*;

async fn connect(store: &Arc<Mutex<Store>>) -> (Server, Client) {
    let server = Server::start(store).await;
    let client = Client::connect(&format!("tcp://{}", server.address)).await.unwrap();
    (server, client)
}

#[tokio::test]
async fn messages_come_as_they_were_published() {
    let store = Arc::default();
    let (_server, client) = connect(&store).await;
    let queue = client.declare_queue("q", QueueOptions::default()).await.unwrap();
    assert_eq!((&*queue.name, queue.messages), ("q", 0));

    let properties = Properties { reply_to: Some("r".into()), ..Properties::default() };
    let large = Bytes::from(vec![b'x'; 300_000]);
    let message = Message::to_exchange("ex", "key", large.clone()).properties(&properties);
    assert_eq!(client.publish(message).await.unwrap().sequence, 1);

    let mut q = client.subscribe("q", SubscribeOptions::default()).await.unwrap();
    let delivery = q.next().await.unwrap();
    assert_eq!((delivery.exchange(), delivery.routing_key()), ("ex", "key"));
    assert_eq!(delivery.body(), &large);
    let properties = Properties { delivery_mode: Some(2), ..properties };
    assert_eq!(delivery.properties().unwrap(), properties);
    delivery.settle_confirmed().await.unwrap();
    assert!(store.lock().unwrap().messages.is_empty());

    client.publish(Message::to_queue("q", "next")).await.unwrap();
    assert_eq!(q.next().await.unwrap().body(), "next");
}

#[tokio::test]
async fn pipelined_publishes_are_confirmed_through_a_small_window() {
    let store = Arc::default();
    let server = Server::start(&store).await;
    let options = ConnectOptions { publish_window: 4, ..ConnectOptions::default() };
    let address = format!("tcp://{}", server.address);
    let client = Client::connect_with(&address, options).await.unwrap();
    let mut confirmations = Vec::new();
    for index in 0..500 {
        // Every tenth is heavier than the whole window.
        let body = "x".repeat(if index % 10 == 0 { 30_000 } else { 1 });
        let published = client.publish_nowait(Message::to_queue("q", body));
        confirmations.push(soon(published).await.unwrap());
    }
    for (index, confirmation) in confirmations.into_iter().enumerate() {
        assert_eq!(soon(confirmation).await.unwrap().sequence, index as u64 + 1);
    }
    assert_eq!(store.lock().unwrap().stored.len(), 500);
}

#[tokio::test]
async fn refusals_returns_and_mistakes_are_errors_of_their_own_kind() {
    let store = Arc::default();
    let (_server, client) = connect(&store).await;
    let refused = client.purge_queue("q").await;
    assert!(matches!(refused, Err(Error::Refused { code: 404, .. })), "{refused:?}");
    let returned = client.publish(Message::to_queue("none", "m").mandatory()).await;
    assert!(matches!(returned, Err(Error::Returned { code: 312, .. })), "{returned:?}");
    let long = client.publish(Message::to_queue("q".repeat(256), "m")).await;
    assert!(matches!(long, Err(Error::Invalid(_))), "{long:?}");
    let huge = vec![0; 18 << 20];
    let huge = client.publish(Message::to_queue("q", huge)).await;
    assert!(matches!(huge, Err(Error::Invalid(_))), "{huge:?}");
    let large = vec![0; (16 << 20) + 1];
    let large = client.publish(Message::to_queue("q", large)).await;
    assert!(matches!(large, Err(Error::Refused { code: 506, .. })), "{large:?}");
    client.publish(Message::to_queue("q", "still here")).await.unwrap();
    assert_eq!(store.lock().unwrap().connects, 1);
}

#[tokio::test]
async fn a_wrong_login_is_no_reason_to_try_again() {
    let server = Server::start(&Arc::default()).await;
    let address = format!("failover:(tcp://guest:wrong@{})", server.address);
    let refused = Client::connect(&address).await;
    assert!(matches!(refused, Err(Error::Refused { code: 403, .. })), "{refused:?}");
}

#[test]
fn outside_of_a_runtime_there_is_no_client_and_no_panic() {
    let mut connect = std::pin::pin!(Client::connect("tcp://localhost"));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let polled = connect.as_mut().poll(&mut context);
    let std::task::Poll::Ready(Err(Error::Invalid(why))) = polled else { panic!("{polled:?}") };
    assert!(why.contains("runtime"), "{why}");
}

#[tokio::test]
async fn get_takes_one_message_or_none() {
    let store = Arc::default();
    let (_server, client) = connect(&store).await;
    assert!(client.get("q", AckMode::Manual).await.unwrap().is_none());
    client.publish(Message::to_queue("q", "one")).await.unwrap();
    let delivery = client.get("q", AckMode::Manual).await.unwrap().unwrap();
    assert_eq!(delivery.body(), "one");
    delivery.settle_confirmed().await.unwrap();
    assert!(client.get("q", AckMode::Manual).await.unwrap().is_none());
}

#[tokio::test]
async fn a_transaction_publishes_and_settles() {
    let store: Arc<Mutex<Store>> = Arc::default();
    let (_server, client) = connect(&store).await;
    client.publish(Message::to_queue("q", "in")).await.unwrap();
    let delivery = client.get("q", AckMode::Manual).await.unwrap().unwrap();
    let mut transaction = client.transaction();
    transaction.publish(Message::to_queue("q", "out 1")).unwrap();
    transaction.publish(Message::to_queue("q", "out 2")).unwrap();
    transaction.settle(&delivery);
    transaction.commit().await.unwrap();
    assert_eq!(client.publish(Message::to_queue("q", "after")).await.unwrap().sequence, 4);
    let store = store.lock().unwrap();
    assert_eq!(store.stored, ["in", "out 1", "out 2", "after"]);
    assert_eq!(store.messages.len(), 3);
}

#[tokio::test]
async fn a_batch_larger_than_the_window_is_published_in_its_order() {
    let store: Arc<Mutex<Store>> = Arc::default();
    let server = Server::start(&store).await;
    let options = ConnectOptions { publish_window: 10, ..ConnectOptions::default() };
    let client = Client::connect_with(&format!("tcp://{}", server.address), options).await.unwrap();
    // One of them weighs more than the whole window.
    let body =
        |number: usize| format!("{number}{}", " ".repeat(usize::from(number == 50) * 60_000));
    let messages = (0..100).map(|number| Message::to_queue("q", body(number)));
    let confirmations = client.publish_batch(messages).await.unwrap();
    for (index, confirmation) in confirmations.into_iter().enumerate() {
        assert_eq!(confirmation.await.unwrap().sequence, index as u64 + 1);
    }
    let expected: Vec<String> = (0..100).map(body).collect();
    assert_eq!(store.lock().unwrap().stored, expected);
    let wrong = Message::to_queue("q".repeat(256), "");
    let batch = client.publish_batch([Message::to_queue("q", "never"), wrong]).await;
    assert!(matches!(batch, Err(Error::Invalid(_))));
    assert_eq!(store.lock().unwrap().stored.len(), 100);
}

#[tokio::test]
async fn a_cumulative_settle_settles_what_was_handed_out_before() {
    let store: Arc<Mutex<Store>> = Arc::default();
    let (_server, client) = connect(&store).await;
    let batch = (0..6).map(|number| Message::to_queue("q", number.to_string()));
    for confirmation in client.publish_batch(batch).await.unwrap() {
        confirmation.await.unwrap();
    }
    let mut q = client.subscribe("q", SubscribeOptions::default()).await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.push(q.next().await.unwrap());
    }
    let (_kept, fourth) = (taken.pop(), taken.pop().unwrap());
    assert!(taken.remove(1).settle());
    assert!(fourth.settle_through());
    client.publish(Message::to_queue("q", "6")).await.unwrap();
    let left: Vec<String> = store.lock().unwrap().stored.drain(4..).collect();
    assert_eq!(left, ["4", "5", "6"]);
    assert_eq!(store.lock().unwrap().messages.len(), 3);
}

#[tokio::test]
async fn closing_waits_for_what_was_published_and_dropping_too() {
    let store: Arc<Mutex<Store>> = Arc::default();
    let (server, client) = connect(&store).await;
    let mut q = client.subscribe("q", SubscribeOptions::default()).await.unwrap();
    let confirmation = client.publish_nowait(Message::to_queue("q", "one")).await.unwrap();
    let clone = client.clone();
    client.close().await;
    assert!(confirmation.await.is_ok());
    assert_eq!(clone.publish(Message::to_queue("q", "late")).await, Err(Error::Closed));
    assert_eq!(*clone.state().borrow(), ConnectionState::Closed);
    while let Some(delivery) = q.next().await {
        assert!(!delivery.settle());
    }
    assert_eq!(q.error(), Some(&Error::Closed));

    let client = Client::connect(&format!("tcp://{}", server.address)).await.unwrap();
    let mut state = client.state();
    drop(client.publish_nowait(Message::to_queue("q", "two")).await.unwrap());
    drop(client);
    state.wait_for(|state| *state == ConnectionState::Closed).await.unwrap();
    assert_eq!(store.lock().unwrap().stored.len(), 1, "the second producer starts at 1 again");
}

#[tokio::test]
async fn a_publish_dropped_while_the_window_is_full_publishes_nothing() {
    let store: Arc<Mutex<Store>> = Arc::default();
    let server = Server::start(&store).await;
    let options = ConnectOptions { publish_window: 1, ..ConnectOptions::default() };
    let client = Client::connect_with(&format!("tcp://{}", server.address), options).await.unwrap();
    store.lock().unwrap().is_mute = true;
    let first = client.publish_nowait(Message::to_queue("q", "first")).await.unwrap();
    {
        let mut second = std::pin::pin!(client.publish(Message::to_queue("q", "second")));
        tokio::select! {
            biased;
            answer = &mut second => panic!("{answer:?}"),
            // Answered behind the first publish on the same connection.
            declared = client.declare_queue("q", QueueOptions::default()) => drop(declared.unwrap()),
        }
    }
    drop(first);
    client.declare_queue("q", QueueOptions::default()).await.unwrap();
    assert_eq!(store.lock().unwrap().stored, ["first"], "nor later");
}
