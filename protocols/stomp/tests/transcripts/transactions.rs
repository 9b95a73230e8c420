//! BEGIN, COMMIT and ABORT.

use crate::common::{Peer, options, plain, token};
use understudy_model::{ConsumerNumber, RefusalKind, Request, Transaction};
use understudy_stomp::StompOptions;

fn peer() -> (Peer, ConsumerNumber) {
    let mut peer = Peer::open("1.2");
    let consumer = peer.subscribe("id:s\ndestination:/queue/a\nack:client-individual");
    (1..=4).for_each(|lsn| peer.deliver(consumer, lsn, &plain("a", b"")));
    peer.written();
    (peer, consumer)
}

fn settle(command: &str, number: u32, more: &str) -> String {
    format!("{command}\nid:T_s@@session-s@@1-{number}\n{more}\n\n\0")
}

fn committed(peer: &mut Peer) -> Transaction {
    match peer.request() {
        Request::Transaction(transaction) => *transaction,
        other => panic!("not a transaction: {other:?}"),
    }
}

#[test]
fn a_commit_is_one_request_and_receipts_follow_it() {
    let (mut peer, _) = peer();
    peer.feed("BEGIN\ntransaction:t\nreceipt:b\n\n\0");
    assert_eq!(peer.written(), "RECEIPT\nreceipt-id:b\n\n\0");
    peer.feed("SEND\ndestination:/queue/b\ntransaction:t\nreceipt:s\n\none\0");
    peer.feed("SEND\ndestination:/topic/b\ntransaction:t\n\ntwo\0");
    peer.feed(&settle("ACK", 1, "transaction:t"));
    peer.feed(&settle("NACK", 2, "transaction:t\nrequeue:false"));
    peer.feed(&settle("NACK", 3, "transaction:t\nreceipt:n"));
    assert_eq!((peer.requests(), peer.written()), (vec![], String::new()));
    peer.feed("COMMIT\ntransaction:t\nreceipt:c\n\n\0");
    let transaction = committed(&mut peer);
    let bodies: Vec<_> = transaction.publishes.iter().map(crate::common::body).collect();
    assert_eq!(bodies, [b"one", b"two"]);
    assert!(transaction.publishes.iter().all(|publish| publish.confirm.is_none()));
    let lsns = |refs: &[understudy_model::DeliveryRef]| refs.iter().map(|r| r.lsn.0).collect();
    let settled: [Vec<u64>; 3] =
        [lsns(&transaction.settles), lsns(&transaction.discards), lsns(&transaction.returns)];
    assert_eq!(settled, [[1], [2], [3]]);
    assert_eq!(peer.written(), "");
    peer.answer(transaction.token);
    let receipt = |id| format!("RECEIPT\nreceipt-id:{id}\n\n\0");
    assert_eq!(peer.written(), ["s", "n", "c"].map(receipt).concat());
}

#[test]
fn an_abort_forgets_sends_and_gives_acks_back() {
    let (mut peer, _) = peer();
    peer.feed("BEGIN\ntransaction:t\n\n\0SEND\ndestination:/queue/b\ntransaction:t\n\none\0");
    peer.feed(&settle("ACK", 1, "transaction:t"));
    peer.feed("ABORT\ntransaction:t\nreceipt:a\n\n\0");
    assert_eq!(peer.requests(), []);
    assert_eq!(peer.written(), "RECEIPT\nreceipt-id:a\n\n\0");
    peer.feed(&settle("ACK", 1, "foo:1"));
    assert!(matches!(peer.request(), Request::Settle { .. }));
    // The name may be used again.
    peer.feed("BEGIN\ntransaction:t\n\n\0COMMIT\ntransaction:t\n\n\0");
    assert!(committed(&mut peer).publishes.is_empty());
}

#[test]
fn an_abort_after_the_subscription_ended_returns_its_acks() {
    let mut peer = Peer::open("1.2");
    let consumer = peer.subscribe("id:s\ndestination:/queue/a\nack:client");
    peer.deliver(consumer, 1, &plain("a", b""));
    peer.feed(&format!("BEGIN\ntransaction:t\n\n\0{}", settle("ACK", 1, "transaction:t")));
    peer.feed("UNSUBSCRIBE\nid:s\n\n\0");
    peer.answer_all();
    peer.feed("ABORT\ntransaction:t\n\n\0");
    assert!(matches!(peer.request(), Request::Return { deliveries, .. } if deliveries.len() == 1));
}

#[test]
fn a_refused_commit_is_an_error() {
    let (mut peer, _) = peer();
    peer.feed("BEGIN\ntransaction:t\n\n\0SEND\ndestination:/exchange/e\ntransaction:t\n\n\0");
    peer.feed("COMMIT\ntransaction:t\nreceipt:c\n\n\0");
    let token = token(&peer.request()).unwrap();
    peer.refuse(token, RefusalKind::NotFound, "no exchange 'e' in vhost '/'");
    let written = peer.written();
    assert!(written.starts_with("ERROR\nmessage:not_found\n"));
    assert!(written.contains("\nreceipt-id:c\n"));
}

#[test]
fn names_must_fit() {
    for (frames, message, body) in [
        ("BEGIN\n\n\0", "Missing transaction", "'BEGIN' must include a 'transaction' header\n"),
        ("COMMIT\ntransaction:x\n\n\0", "Bad transaction", "Invalid transaction identifier: 'x'\n"),
        ("ABORT\ntransaction:x\n\n\0", "Bad transaction", "Invalid transaction identifier: 'x'\n"),
        (
            "BEGIN\ntransaction:x\n\n\0BEGIN\ntransaction:x\n\n\0",
            "Bad transaction",
            "Transaction 'x' has begun already\n",
        ),
    ] {
        let mut peer = Peer::open("1.2");
        peer.feed(frames);
        peer.assert_error(message, body);
    }
}

#[test]
fn limits_hold() {
    let small = StompOptions { transactions_max: 2, transaction_bytes_max: 10_000, ..options() };
    let mut peer = Peer::open_with(small.clone(), "1.2");
    (0..3).for_each(|n| peer.feed(&format!("BEGIN\ntransaction:{n}\n\n\0")));
    peer.assert_error_message("Transaction limit exceeded");

    // What is committed counts no more, and the limit is for all together.
    let mut peer = Peer::open_with(small, "1.2");
    let send = |n: u32| {
        let body = "x".repeat(4_000);
        format!("SEND\ndestination:/queue/a\ntransaction:{n}\n\n{body}\0")
    };
    for _ in 0..5 {
        peer.feed(&format!("BEGIN\ntransaction:1\n\n\0{}COMMIT\ntransaction:1\n\n\0", send(1)));
    }
    peer.feed("BEGIN\ntransaction:1\n\n\0BEGIN\ntransaction:2\n\n\0");
    peer.feed(&[send(1), send(2)].concat());
    assert!(!peer.out.close);
    peer.feed(&send(2));
    peer.assert_error_message("Transaction too large");
}
