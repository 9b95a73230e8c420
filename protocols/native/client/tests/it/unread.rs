//! A broker that is alive and does not read: as ours stops its publishers while its disk is full.

use crate::soon;
use bytes::BytesMut;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use understudy_client::*;
use understudy_native::{
    Confirm, Decoder, Done, Frame, HelloOk, LoginOk, PREAMBLE_BYTES, Ping, WriteBuffer,
};

const HEARTBEAT: Duration = Duration::from_millis(100);
const UNREAD: Duration = Duration::from_millis(600);
/// In all more than both sockets hold.
const PUBLISHES: u64 = 60;
const BODY_BYTES: usize = 1 << 20;

async fn say(socket: &mut TcpStream, frames: impl IntoIterator<Item = Frame>) {
    let mut out = WriteBuffer::default();
    frames.into_iter().for_each(|frame| frame.encode(&mut out));
    socket.write_all(&out.take_all()).await.unwrap();
}

struct Reader {
    input: BytesMut,
}

impl Reader {
    async fn next(&mut self, socket: &mut TcpStream) -> Frame {
        let decoder = Decoder { frame_bytes_max: 2 * BODY_BYTES, text_bytes_max: 255 };
        loop {
            match decoder.next(&mut self.input).unwrap() {
                Some(frame) => return frame,
                None => assert!(socket.read_buf(&mut self.input).await.unwrap() > 0, "it left"),
            }
        }
    }
}

/// Lets one client in, does not read for a while, and then reads and confirms. Returns how many pings
/// came.
async fn broker(listener: TcpListener) -> usize {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut preamble = [0; PREAMBLE_BYTES];
    socket.read_exact(&mut preamble).await.unwrap();
    let mut reader = Reader { input: BytesMut::new() };
    let open = loop {
        if let Frame::Open(open) = reader.next(&mut socket).await {
            break open;
        }
    };
    let hello = HelloOk {
        frame_bytes_max: 2 * BODY_BYTES as u64,
        message_bytes_max: 2 * BODY_BYTES as u64,
        heartbeat_ms: HEARTBEAT.as_millis() as u64,
        ..HelloOk::default()
    };
    let done = Done { request: open.request };
    say(&mut socket, [hello.into(), LoginOk::default().into(), done.into()]).await;
    let since = Instant::now();
    while since.elapsed() < UNREAD {
        say(&mut socket, [Ping { number: 1 }.into()]).await;
        sleep(HEARTBEAT / 2).await;
    }
    let mut pings = 0;
    loop {
        match reader.next(&mut socket).await {
            Frame::Publish(publish) if publish.sequence == PUBLISHES => {
                say(&mut socket, [Confirm { through: PUBLISHES }.into()]).await;
            }
            Frame::Ping(_) => pings += 1,
            Frame::Goodbye(_) => break,
            _ => {}
        }
    }
    pings
}

#[tokio::test]
async fn a_broker_that_does_not_read_is_waited_for_and_not_flooded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let broker = tokio::spawn(broker(listener));
    let options = ConnectOptions { publish_window: u32::MAX, ..ConnectOptions::default() };
    let client = Client::connect_with(&address, options).await.unwrap();
    let batch = (0..PUBLISHES).map(|_| Message::to_queue("q", vec![0; BODY_BYTES]));
    for confirmation in client.publish_batch(batch).await.unwrap() {
        soon(confirmation).await.unwrap();
    }
    soon(client.close()).await;
    let pings = soon(broker).await.unwrap();
    let one_each_half_interval = 2 * (UNREAD.as_millis() / HEARTBEAT.as_millis()) as usize;
    assert!(pings <= one_each_half_interval, "{pings} pings");
}
