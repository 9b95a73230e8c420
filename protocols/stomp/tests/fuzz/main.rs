//! Whatever a client sends, in whatever pieces, and whatever the broker answers: no panic, frames
//! that are frames, every delivery settled once at most, and no more memory than what the client has
//! sent pays for. See the crate `fuzzing` for how to run it longer.
#![allow(clippy::unwrap_used, reason = "tests")]

mod broker;
mod frames;

use broker::Broker;
use bytes::{BufMut, BytesMut};
use frames::{Written, borders};
use fuzzing::{Random, Target, held_bytes};
use std::path::Path;
use understudy_model::{LoginOutcome, Outbox, Session, Text};
use understudy_stomp::{Dialect, StompOptions, StompSession};

/// A session that has nothing to keep may hold so much.
const IDLE_BYTES_MAX: usize = 8 << 10;
/// For each byte that the client has sent: a SUBSCRIBE of some dozen bytes is kept as several
/// hundred.
const HELD_PER_BYTE_MAX: usize = 64;
const INPUT_BYTES_MAX: usize = 64 << 10;
const MESSAGE_BYTES_MAX: usize = 16 << 10;

fn options(random: &mut Random) -> StompOptions {
    StompOptions {
        dialect: if random.one_in(2) { Dialect::Activemq } else { Dialect::Rabbitmq },
        message_bytes_max: MESSAGE_BYTES_MAX,
        header_bytes_max: 8 << 10,
        headers_max: 64,
        subscriptions_max: 50,
        transactions_max: 8,
        transaction_bytes_max: 32 << 10,
        ..StompOptions::default()
    }
}

struct Run<'a> {
    session: StompSession,
    out: Outbox,
    broker: Broker,
    written: Written,
    now_ms: u64,
    random: &'a mut Random,
}

impl Run<'_> {
    fn after_step(&mut self) {
        self.written.check(&self.out.write.take_all());
        self.broker.take(std::mem::take(&mut self.out.requests), self.random);
    }

    /// Bytes in pieces, with effects and the time between them.
    fn feed(&mut self, input: &mut BytesMut, mut rest: &[u8]) {
        while !rest.is_empty() && !self.out.close {
            let longest = if self.random.one_in(3) { 40 } else { rest.len() };
            let piece = 1 + self.random.below(longest.min(rest.len()));
            let (now, later) = rest.split_at(piece);
            rest = later;
            input.put_slice(now);
            self.session.on_bytes(self.now_ms, input, &mut self.out);
            self.after_step();
            if self.out.login.take().is_some() {
                self.log_in();
                // What came behind the login.
                self.session.on_bytes(self.now_ms, input, &mut self.out);
                self.after_step();
            }
            if self.random.one_in(2) {
                let count = 1 + self.random.below(40);
                self.tell(count);
            }
            if self.random.one_in(100) {
                self.now_ms += self.random.below(8_000) as u64;
                self.session.on_timer(self.now_ms, &mut self.out);
                self.after_step();
            }
        }
    }

    fn log_in(&mut self) {
        let outcome = if self.random.one_in(50) {
            LoginOutcome::Refused
        } else {
            LoginOutcome::Accepted { user: Text::from_static("guest"), tags: Vec::new() }
        };
        self.session.on_login(self.now_ms, outcome, &mut self.out);
        self.after_step();
    }

    fn tell(&mut self, count: usize) {
        let mut effects = self.broker.effects(count, self.random);
        self.session.on_effects(self.now_ms, &mut effects, &mut self.out);
        assert!(effects.is_empty());
        self.after_step();
    }
}

fn run(bytes: &[u8], random: &mut Random) {
    let mut run = Run {
        session: StompSession::new(options(random).into(), "session-s".to_owned(), 0),
        out: Outbox::default(),
        broker: Broker::default(),
        written: Written::default(),
        now_ms: 0,
        random,
    };
    let mut input = BytesMut::new();
    // The recorded ids of messages are those of another session.
    let bytes = frames::with_own_session_id(bytes, "session-s");
    run.feed(&mut input, &bytes);
    while run.broker.owes() && !run.out.close {
        run.tell(usize::MAX);
    }
    assert!(run.out.close || input.len() <= MESSAGE_BYTES_MAX + (16 << 10), "of half a frame");
    run.written.check_end();
    let delivered = run.broker.delivered_bytes();
    drop(run.out);
    let held = held_bytes(run.session);
    let held_max = IDLE_BYTES_MAX + HELD_PER_BYTE_MAX * bytes.len() + delivered;
    assert!(held <= held_max, "{held} bytes are held after {} from the client", bytes.len());
}

#[test]
fn whatever_a_client_sends_does_no_harm() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let target = Target {
        corpus: &folder,
        findings: &Path::new(env!("CARGO_TARGET_TMPDIR")).join("stomp"),
        frames: borders,
        input_bytes_max: INPUT_BYTES_MAX,
    };
    target.fuzz(run);
}
