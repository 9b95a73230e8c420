//! `cargo bench -p understudy-stomp`: nanoseconds for each frame and megabytes per second, of the
//! codec alone and of the whole session with its mapping. One thread; medians of runs.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, reason = "a bench")]

use bytes::{Bytes, BytesMut};
use std::hint::black_box;
use std::time::{Duration, Instant};
use understudy_model::{
    Body, ConsumerNumber, Delivery, Effect, EnqueueView, LoginOutcome, Lsn, Outbox, Properties,
    Publish, QueueId, Reply, Request, Session, Table, Text, Token, Value,
};
use understudy_stomp::{StompOptions, StompSession, count_frames};

const FRAMES: usize = 64;
const ROUNDS: usize = 200;
const RUNS: usize = 9;

fn send(body_bytes: usize) -> Vec<u8> {
    let mut frame = format!(
        "SEND\ndestination:/queue/orders\npersistent:true\ncontent-type:text/plain\n\
         customer:4711\nreceipt:r-123456\ncontent-length:{body_bytes}\n\n"
    )
    .into_bytes();
    frame.extend(vec![b'x'; body_bytes]);
    frame.push(0);
    frame
}

/// `run` handles [`FRAMES`] frames of `frame_bytes` each, with what `prepare` made.
fn measure<T>(
    name: &str,
    frame_bytes: usize,
    mut prepare: impl FnMut() -> T,
    mut run: impl FnMut(T),
) {
    let mut runs: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let mut spent = Duration::ZERO;
            for _ in 0..ROUNDS {
                let prepared = prepare();
                let start = Instant::now();
                run(prepared);
                spent += start.elapsed();
            }
            spent
        })
        .collect();
    runs.sort_unstable();
    let frame_ns = runs[RUNS / 2].as_secs_f64() * 1e9 / (FRAMES * ROUNDS) as f64;
    println!("| {name} | {frame_ns:.0} | {:.0} |", frame_bytes as f64 / frame_ns * 1e3);
}

fn codec_rows() {
    let frames = [
        ("read: SEND, 16 bytes", send(16)),
        ("read: SEND, 1 KiB", send(1024)),
        ("read: SEND, 16 KiB", send(16 * 1024)),
        ("read: ACK", b"ACK\nid:T_1@@session-0123456789abcdef@@1-123456\n\n\0".to_vec()),
    ];
    for (name, frame) in frames {
        let all = frame.repeat(FRAMES);
        measure(
            name,
            frame.len(),
            || BytesMut::from(&all[..]),
            |mut input| assert_eq!(count_frames(black_box(&mut input)), FRAMES),
        );
    }
}

fn session() -> (StompSession, Outbox) {
    let mut session = StompSession::new(StompOptions::default().into(), "session-s".to_owned(), 0);
    let mut out = Outbox::default();
    let connect = &b"CONNECT\naccept-version:1.2\nlogin:guest\npasscode:guest\n\n\0"[..];
    session.on_bytes(0, &mut BytesMut::from(connect), &mut out);
    let user = out.login.take().unwrap().user;
    session.on_login(0, LoginOutcome::Accepted { user, tags: vec![] }, &mut out);
    let done = |token: Token| Effect::Reply { token, result: Ok(Reply::Done) };
    session.on_effects(0, &mut vec![done(Token(1))], &mut out);
    let subscribe = &b"SUBSCRIBE\nid:1\ndestination:/queue/orders\nack:client-individual\n\n\0"[..];
    session.on_bytes(0, &mut BytesMut::from(subscribe), &mut out);
    out = Outbox::default();
    (session, out)
}

fn session_rows() {
    let (mut session, mut out) = session();
    let frame = send(1024);
    let all = frame.repeat(FRAMES);
    measure(
        "session: SEND, 1 KiB, to a request",
        frame.len(),
        || BytesMut::from(&all[..]),
        |mut input| {
            session.on_bytes(0, &mut input, &mut out);
            assert_eq!(out.requests.len(), FRAMES);
            let last = black_box(out.requests.drain(..).next_back());
            let Some(Request::Publish(Publish { confirm: Some(through), .. })) = last else {
                panic!("a publish with a confirm");
            };
            let confirm = Effect::Confirm { channel: 0, through };
            session.on_effects(0, &mut vec![confirm], &mut out);
            out.write = understudy_model::WriteBuffer::default();
        },
    );
    let record = record();
    let mut lsn = 0;
    let mut ids = Vec::new();
    let consumer = ConsumerNumber(1);
    let deliveries = || {
        (0..FRAMES)
            .map(|_| {
                lsn += 1;
                let (queue, lsn, record) = (QueueId(Lsn(1)), Lsn(lsn), record.clone());
                Effect::Deliver(Delivery {
                    consumer,
                    queue,
                    lsn,
                    redelivered: false,
                    returns: 0,
                    record,
                })
            })
            .collect::<Vec<_>>()
    };
    let message_bytes = record.len() + 150;
    measure(
        "session: a delivery, 1 KiB, to a MESSAGE",
        message_bytes,
        deliveries,
        |mut effects| {
            session.on_effects(0, &mut effects, &mut out);
            let written = std::mem::take(&mut out.write);
            ids.push(black_box(written));
        },
    );
}

fn record() -> Bytes {
    let mut headers = Table::default();
    headers.push("customer", Value::text("4711"));
    let properties = Properties {
        headers: Some(headers),
        delivery_mode: Some(2),
        content_type: Some(Text::from_static("text/plain")),
        ..Properties::default()
    };
    let publish = Publish {
        routing_key: Text::from_static("orders"),
        properties: properties.to_bytes(),
        body: Body::from(Bytes::from(vec![b'x'; 1024])),
        ..Publish::default()
    };
    let mut record = BytesMut::new();
    EnqueueView::encode(&[QueueId(Lsn(1))], &publish, &mut record);
    record.freeze()
}

fn main() {
    println!("| what | ns a frame | MB/s |\n|---|---|---|");
    codec_rows();
    session_rows();
}
