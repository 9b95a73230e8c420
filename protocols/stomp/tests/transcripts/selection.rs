//! `selector` and `browser` on SUBSCRIBE.

use crate::common::{Message, Peer, plain};
use understudy_model::{Consume, ConsumeMode, Effect, Properties, Request, Table, Value};

fn consume(headers: &str) -> Consume {
    let mut peer = Peer::open("1.2");
    peer.feed(&format!("SUBSCRIBE\nid:1\n{headers}\n\n\0"));
    let requests = peer.answer_all();
    let found = requests.into_iter().find_map(|request| match request {
        Request::Consume(consume) => Some(consume),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{headers}: {}", peer.written()))
}

#[test]
fn a_selector_leaves_the_rest_in_a_queue_and_out_of_a_topics_subscription() {
    let prefixed = "convert_string_expressions:price > 3";
    for (headers, selector, mode) in [
        ("destination:/queue/a\nselector:price > 3", prefixed, ConsumeMode::Take),
        ("destination:/amq/queue/a\nselector:price > 3", prefixed, ConsumeMode::Take),
        ("destination:/topic/a\nselector:price > 3", prefixed, ConsumeMode::Filter),
        ("destination:/exchange/e\nselector:price > 3", prefixed, ConsumeMode::Filter),
        ("destination:/topic/a\ndurable:true\nselector:price > 3", prefixed, ConsumeMode::Filter),
        ("destination:/topic/a\nx-queue-name:q\nselector:price > 3", prefixed, ConsumeMode::Take),
        ("destination:/queue/a\nselector: ", "", ConsumeMode::Take),
        ("destination:/topic/a\nselector:", "", ConsumeMode::Take),
        ("destination:/queue/a\nbrowser:true", "", ConsumeMode::Browse),
        ("destination:/queue/a\nbrowser:false", "", ConsumeMode::Take),
        ("destination:/queue/a\nbrowser:true\nselector:price > 3", prefixed, ConsumeMode::Browse),
    ] {
        let consume = consume(headers);
        assert_eq!((&*consume.selector, consume.mode), (selector, mode), "{headers}");
    }
}

#[test]
fn a_browser_looks_into_queues_only() {
    for destination in ["/topic/a", "/exchange/e/k"] {
        let mut peer = Peer::open("1.2");
        peer.feed(&format!("SUBSCRIBE\nid:1\ndestination:{destination}\nbrowser:true\n\n\0"));
        peer.assert_error("Unsupported destination", "A browser looks into a queue.\n");
    }
}

#[test]
fn copies_need_no_ack_and_the_last_message_says_that_it_is() {
    let mut peer = Peer::open("1.2");
    let browser = peer.subscribe("id:1\ndestination:/amq/queue/a\nack:client\nbrowser:true");
    let mut headers = Table::default();
    headers.push("browser", Value::text("end"));
    let properties = Properties { headers: Some(headers), ..Properties::default() };
    peer.deliver(browser, 7, &Message { properties, ..plain("a", b"x") });
    let head = "MESSAGE\nsubscription:1\ndestination:/amq/queue/a\nmessage-id:T_1@@session-s@@1-";
    let copy = format!("{head}1\nredelivered:false\ncontent-length:1\n\nx\0");
    assert_eq!(peer.written(), copy, "a publisher cannot end it");
    peer.effect(Effect::BrowseEnd { consumer: browser });
    assert_eq!(peer.written(), format!("{head}0\nbrowser:end\ncontent-length:0\n\n\0"));

    peer.feed("ACK\nid:T_1@@session-s@@1-1\nreceipt:r\n\n\0");
    peer.answer_all();
    assert_eq!(peer.written(), "RECEIPT\nreceipt-id:r\n\n\0");
    peer.feed("UNSUBSCRIBE\nid:1\n\n\0");
    peer.answer_all();
    assert!(!peer.out.close);
}
