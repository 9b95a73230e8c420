//! What the session writes, checked as a strict client would.

use std::collections::{BTreeMap, BTreeSet};

const FRAME_MAX: usize = 131_072;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Content that is awaited on a channel.
enum Content {
    Header,
    Body(u64),
}

#[derive(Default)]
pub(crate) struct Written {
    /// `connection.open-ok` was written.
    opened: bool,
    /// `connection.close` or `close-ok` was written, or a protocol header: no more may follow.
    over: bool,
    open: BTreeSet<u16>,
    /// Closed by us; the client's `close-ok` is due.
    closed_here: BTreeSet<u16>,
    content: BTreeMap<u16, Content>,
}

impl Written {
    pub(crate) fn is_running(&self) -> bool {
        self.opened && !self.over
    }

    pub(crate) fn check(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if bytes.starts_with(b"AMQP") {
                assert!(!self.opened && bytes.len() == 8);
                self.over = true;
                return;
            }
            let (kind, channel) = (bytes[0], u16::from_be_bytes([bytes[1], bytes[2]]));
            let size = u32::from_be_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]) as usize;
            assert!(size + 8 <= FRAME_MAX, "a frame of {size} bytes");
            assert_eq!(bytes[7 + size], 0xce, "the end of a frame");
            self.frame(kind, channel, &bytes[7..7 + size]);
            bytes = &bytes[8 + size..];
        }
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        if kind == HEARTBEAT {
            assert!(channel == 0 && payload.is_empty());
            return;
        }
        assert!(!self.over, "a frame behind the end: {kind} {payload:?}");
        match (kind, self.content.remove(&channel)) {
            (METHOD, None) => self.method(channel, payload),
            (HEADER, Some(Content::Header)) => {
                let size = u64::from_be_bytes(payload[4..12].try_into().unwrap());
                if size > 0 {
                    self.content.insert(channel, Content::Body(size));
                }
            }
            (BODY, Some(Content::Body(left))) => {
                assert!(!payload.is_empty());
                let left =
                    left.checked_sub(payload.len() as u64).expect("no longer than announced");
                if left > 0 {
                    self.content.insert(channel, Content::Body(left));
                }
            }
            (kind, _) => panic!("frame of type {kind} out of order on channel {channel}"),
        }
    }

    fn method(&mut self, channel: u16, payload: &[u8]) {
        let id = (payload[1], payload[3]);
        if channel == 0 {
            assert_eq!(id.0, 10);
            self.opened |= id.1 == 41;
            self.over |= matches!(id.1, 50 | 51);
            return;
        }
        match id {
            (20, 11) => {
                assert!(self.open.insert(channel), "opened twice");
                self.closed_here.remove(&channel);
            }
            (20, 40) => {
                assert!(self.open.remove(&channel), "closed, but not open");
                self.closed_here.insert(channel);
            }
            // Also the answer to a close that crossed our own.
            (20, 41) => drop(self.open.remove(&channel)),
            _ => assert!(self.open.contains(&channel), "{id:?} on channel {channel}, not open"),
        }
        if let (60, 50 | 60 | 71) = id {
            self.content.insert(channel, Content::Header);
        }
    }

    /// What a client sends to close every channel that is open, and to answer every close.
    pub(crate) fn closing_frames(&mut self) -> Vec<Vec<u8>> {
        let frame = |channel: u16, payload: &[u8]| {
            let mut bytes = vec![METHOD];
            bytes.extend(channel.to_be_bytes());
            bytes.extend((payload.len() as u32).to_be_bytes());
            bytes.extend(payload);
            bytes.push(0xce);
            bytes
        };
        let close: &[u8] = &[0, 20, 0, 40, 0, 200, 0, 0, 0, 0, 0];
        let open = self.open.iter().map(|channel| frame(*channel, close));
        let answers = self.closed_here.iter().map(|channel| frame(*channel, &[0, 20, 0, 41]));
        open.chain(answers).collect()
    }
}
