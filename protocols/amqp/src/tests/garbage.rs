//! Whatever a client sends: no panic, and no more kept than a frame.

use super::*;
use amq_protocol::protocol::queue;

/// A generator of its own (xorshift), so that every run is the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// A conversation that touches most methods, as frames.
fn conversation() -> Vec<Vec<u8>> {
    let classes = [
        AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare::default())),
        AMQPClass::Queue(queue::AMQPMethod::Bind(queue::Bind::default())),
        AMQPClass::Basic(basic::AMQPMethod::Consume(basic::Consume::default())),
        AMQPClass::Basic(basic::AMQPMethod::Qos(basic::Qos { prefetch_count: 3, global: true })),
        AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag: 1, multiple: true })),
        AMQPClass::Basic(basic::AMQPMethod::Get(basic::Get::default())),
        channel_close(),
        channel_open(),
    ];
    let mut frames = vec![bytes_of(&method(1, channel_open()))];
    frames.push(plain_publish(1, "key", b"some body"));
    frames.extend(classes.map(|class| bytes_of(&method(1, class))));
    frames.push(plain_publish(2, "key", b"on a channel that is not open"));
    frames
}

fn answer_all(client: &mut Client, random: &mut Random) {
    let mut effects = Vec::new();
    for request in client.requests() {
        let Some(token) = token_of(&request) else { continue };
        if random.below(4) == 0 {
            effects.push(refused(token, RefusalKind::NotFound, "no"));
        } else {
            effects.push(done(token));
        }
        if let Request::Consume(consume) = request {
            effects.push(Effect::Deliver(delivery(consume.consumer, 1, b"body")));
        }
    }
    client.effects(effects);
    client.written();
}

#[test]
fn mangled_conversations_do_no_harm() {
    let mut random = Random(0x5eed);
    for round in 0..3_000 {
        let mut client = if round % 3 == 0 { Client::new() } else { Client::open() };
        let mut bytes = if round % 3 == 0 { HEADER.to_vec() } else { Vec::new() };
        if round % 3 == 0 {
            bytes.extend(bytes_of(&method(0, start_ok(all_capabilities()))));
        }
        for frame in conversation() {
            if random.below(5) > 0 {
                bytes.extend(frame);
            }
        }
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes.insert(at, random.next() as u8),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at + 1),
            }
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() && !client.out.close {
            let (now, later) = rest.split_at(1 + random.below(rest.len()));
            client.send_bytes(now);
            rest = later;
            if client.out.login.take().is_some() {
                client.accept_login("guest", &[]);
            }
            answer_all(&mut client, &mut random);
            assert!(client.input.len() <= 131_072);
        }
        client.timer(1_000_000);
        client.timer(2_000_000);
        assert!(client.out.close, "round {round}");
    }
}

#[test]
fn noise_does_no_harm() {
    let mut random = Random(77);
    for _ in 0..2_000 {
        let mut client = Client::with_channel();
        let length = random.below(200);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        // Often a plausible frame around the noise.
        if random.below(2) == 0 {
            let mut frame = vec![1 + random.below(3) as u8, 0, random.below(3) as u8, 0, 0, 0];
            frame.push(length as u8);
            frame.extend([0, [10, 20, 40, 50, 60, 85, 90][random.below(7)], 0]);
            frame.push([10, 11, 20, 30, 31, 40, 50, 60, 70, 80, 110][random.below(11)]);
            frame.append(&mut bytes);
            frame.truncate(7 + length);
            frame.push(0xCE);
            bytes = frame;
        }
        client.send_bytes(&bytes);
        answer_all(&mut client, &mut random);
    }
}

#[test]
fn an_answer_to_our_close_is_found_behind_anything() {
    let mut client = Client::with_channel();
    client.send_bytes(&[9; 40]);
    assert!(!client.out.close);
    client.send_bytes(&[1; 500]);
    let close_ok = connection::AMQPMethod::CloseOk(connection::CloseOk {});
    let close_ok = bytes_of(&method(0, AMQPClass::Connection(close_ok)));
    client.send_bytes(&close_ok[..5]);
    assert!(!client.out.close);
    client.send_bytes(&close_ok[5..]);
    assert!(client.out.close);

    let mut silent = Client::with_channel();
    silent.send_bytes(&[9; 40]);
    assert_eq!(silent.session.deadline_ms(), Some(10_000));
    silent.timer(10_000);
    assert!(silent.out.close);
}
