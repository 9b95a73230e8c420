//! Tables nested 3,000 deep, wherever a client may send one.

use super::*;
use bytes::BufMut;

/// The inside of a table whose only field holds a table, and so on.
fn deep_table() -> Vec<u8> {
    let mut inside = Vec::new();
    for _ in 0..3_000 {
        let mut outer = vec![1, b'a', b'F'];
        outer.put_u32(inside.len() as u32);
        outer.extend(inside);
        inside = outer;
    }
    inside
}

fn with_table(head: &[u8], table: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut payload = head.to_vec();
    payload.put_u32(table.len() as u32);
    payload.extend(table);
    payload.extend(tail);
    payload
}

fn frame(kind: u8, number: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.put_u16(number);
    bytes.put_u32(payload.len() as u32);
    bytes.extend(payload);
    bytes.push(0xCE);
    bytes
}

fn expect_too_deep(client: &mut Client) {
    let frames = client.frames();
    let [AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Close(close)))] =
        &frames[..]
    else {
        panic!("{frames:?}")
    };
    assert_eq!(close.reply_code, 502);
    assert!(close.reply_text.as_str().contains("nested too deeply"), "{}", close.reply_text);
}

#[test]
fn in_client_properties() {
    let mut client = Client::new();
    client.send_bytes(HEADER);
    client.written();
    let tail = b"\x05PLAIN\0\0\0\0\x05en_US";
    client.send_bytes(&frame(1, 0, &with_table(&[0, 10, 0, 11], &deep_table(), tail)));
    expect_too_deep(&mut client);
}

#[test]
fn in_an_amqplain_login() {
    let mut client = Client::new();
    client.send_bytes(HEADER);
    client.written();
    let head = b"\0\x0a\0\x0b\0\0\0\0\x08AMQPLAIN";
    client.send_bytes(&frame(1, 0, &with_table(head, &deep_table(), b"\x05en_US")));
    expect_too_deep(&mut client);
}

#[test]
fn in_arguments() {
    let heads: [&[u8]; 7] = [
        b"\0\x28\0\x0a\0\0\x01e\x06direct\0",
        b"\0\x28\0\x1e\0\0\x01d\x01s\x01k\0",
        b"\0\x28\0\x28\0\0\x01d\x01s\x01k\0",
        b"\0\x32\0\x0a\0\0\x01q\0",
        b"\0\x32\0\x14\0\0\x01q\x01e\x01k\0",
        b"\0\x32\0\x32\0\0\x01q\x01e\x01k",
        b"\0\x3c\0\x14\0\0\x01q\x01t\0",
    ];
    for head in heads {
        let mut client = Client::with_channel();
        client.send_bytes(&frame(1, 1, &with_table(head, b"", b"")));
        assert_eq!(client.requests().len(), 1, "{head:?}");
        client.send_bytes(&frame(1, 1, &with_table(head, &deep_table(), b"")));
        expect_too_deep(&mut client);
    }
}

#[test]
fn in_message_headers() {
    let mut client = Client::with_channel();
    client.basic(basic::AMQPMethod::Publish(basic::Publish::default()));
    let head = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0];
    client.send_bytes(&frame(2, 1, &with_table(&head, &deep_table(), b"")));
    expect_too_deep(&mut client);
}
