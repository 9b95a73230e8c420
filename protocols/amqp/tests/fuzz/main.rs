//! Whatever a client sends, in whatever pieces, and whatever the broker answers: no panic, frames
//! that are frames, every delivery settled once and none forgotten, and no more memory than what
//! the client has sent pays for. See the crate `fuzzing` for how to run it longer.
#![allow(clippy::unwrap_used, reason = "tests")]

mod broker;
mod frames;

use broker::Broker;
use bytes::{BufMut, BytesMut};
use frames::Written;
use fuzzing::{Random, Target, held_bytes};
use std::ops::Range;
use std::path::Path;
use understudy_amqp::{AmqpOptions, AmqpSession};
use understudy_model::{LoginOutcome, Outbox, Session, Text};

/// A session that has nothing to keep may hold so much: slots for 2047 channels are 32 KiB of it.
const IDLE_BYTES_MAX: usize = 64 << 10;
/// For each byte that the client has sent. The dearest are channels and consumers: a frame of some
/// dozen bytes makes a session keep several hundred.
const HELD_PER_BYTE_MAX: usize = 64;
const INPUT_BYTES_MAX: usize = 64 << 10;

fn options() -> AmqpOptions {
    AmqpOptions {
        message_bytes_max: 256 << 10,
        held_bytes_max: 512 << 10,
        consumer_timeout_ms: 60_000,
        consumers_per_channel_max: 50,
        connection_seed: 7,
        ..AmqpOptions::default()
    }
}

struct Run<'a> {
    session: AmqpSession,
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
            if self.random.one_in(2) || self.broker.is_behind() {
                let count = 1 + self.random.below(40);
                self.tell(count);
            }
            if self.random.one_in(60) {
                self.now_ms += self.random.below(20_000) as u64;
                self.session.on_timer(self.now_ms, &mut self.out);
                self.after_step();
            }
        }
    }

    fn log_in(&mut self) {
        let outcome = if self.random.one_in(30) {
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

    /// Closes the channels, answers everything: then nothing of theirs may be left.
    fn close_channels(&mut self) {
        for octets in self.written.closing_frames() {
            let mut input = BytesMut::from(&octets[..]);
            self.session.on_bytes(self.now_ms, &mut input, &mut self.out);
            self.after_step();
        }
        self.broker.stop_delivering();
        while self.broker.owes() && !self.out.close {
            self.tell(usize::MAX);
        }
    }
}

fn run(bytes: &[u8], random: &mut Random) {
    let mut session = AmqpSession::new(options(), 0);
    if random.one_in(10) {
        session.on_certificate("orders");
    }
    let mut run = Run {
        session,
        out: Outbox::default(),
        broker: Broker::default(),
        written: Written::default(),
        now_ms: 0,
        random,
    };
    let mut input = BytesMut::new();
    run.feed(&mut input, bytes);
    assert!(input.len() <= 131_072, "half a frame may be kept, not more");
    let mut held_max = IDLE_BYTES_MAX + HELD_PER_BYTE_MAX * bytes.len();
    if run.written.is_running() && input.is_empty() && !run.out.close {
        run.close_channels();
        if run.written.is_running() && !run.out.close {
            run.broker.check_all_given_back();
            held_max = IDLE_BYTES_MAX;
        }
    }
    drop(run.out);
    let held = held_bytes(run.session);
    assert!(held <= held_max, "{held} bytes are held after {} from the client", bytes.len());
}

/// The protocol header and the frames behind it, as far as lengths go.
fn borders(input: &[u8]) -> Vec<Range<usize>> {
    let mut borders = Vec::new();
    let mut at = if input.starts_with(b"AMQP") { 8.min(input.len()) } else { 0 };
    while let Some(header) = input.get(at..at + 7) {
        let size = u32::from_be_bytes([header[3], header[4], header[5], header[6]]) as usize;
        let end = at.saturating_add(size).saturating_add(8);
        if end > input.len() {
            break;
        }
        borders.push(at..end);
        at = end;
    }
    borders
}

#[test]
fn whatever_a_client_sends_does_no_harm() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let target = Target {
        corpus: &folder,
        findings: &Path::new(env!("CARGO_TARGET_TMPDIR")).join("amqp"),
        frames: borders,
        input_bytes_max: INPUT_BYTES_MAX,
    };
    target.fuzz(run);
}
