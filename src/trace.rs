//! Frame tracing: what one client's connection reads and writes goes to the log while an operator
//! wants to see it.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use understudy_model::ConnectionId;

/// Of one read or write so many bytes are shown. Escaped they are four times as long at most.
const SHOWN_BYTES_MAX: usize = 4 * 1024;
/// The longest secret of an AMQP client: what looks like a longer one is a message's body.
const SECRET_BYTES_MAX: u32 = 128 * 1024;
/// To be named in `log_level`.
const TARGET: &str = "understudy::frames";

/// Off at first. The connection's task and the driver share it.
#[derive(Clone, Debug, Default)]
pub struct TraceSwitch(Arc<AtomicBool>);

impl TraceSwitch {
    pub fn turn(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }

    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Of one connection.
#[derive(Default)]
pub(crate) struct FrameTrace {
    pub(crate) switch: TraceSwitch,
    secrets: Secrets,
}

impl FrameTrace {
    pub(crate) fn on_read(&mut self, connection: ConnectionId, bytes: &[u8]) {
        if self.switch.is_on() {
            let text = self.secrets.without(bytes);
            tracing::info!(target: TARGET, %connection, bytes = bytes.len(), "read: {text}");
        }
    }

    /// The socket took the first `written` bytes of `slices`.
    pub(crate) fn on_written(
        &self,
        connection: ConnectionId,
        slices: &[IoSlice<'_>],
        written: usize,
    ) {
        if self.switch.is_on() {
            let bytes = slices.iter().flat_map(|slice| slice.iter().copied());
            let shown: Vec<u8> = bytes.take(written.min(SHOWN_BYTES_MAX)).collect();
            let text = escaped(&shown, written > SHOWN_BYTES_MAX);
            tracing::info!(target: TARGET, %connection, bytes = written, "written: {text}");
        }
    }
}

fn escaped(shown: &[u8], cut: bool) -> String {
    format!("{}{}", shown.escape_ascii(), if cut { "..." } else { "" })
}

/// Finds secrets in what a client sends after its login: a `passcode` (in a second CONNECT, which is
/// refused) and the new secret of AMQP's connection.update-secret. Either may lie across two reads.
#[derive(Default)]
struct Secrets {
    /// The last eight bytes.
    window: u64,
    hidden: Hidden,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Hidden {
    #[default]
    Nothing,
    /// To the end of a STOMP header.
    Header,
    /// The secret's length is to come, in so many bytes.
    Length(u8),
    /// So many bytes.
    Secret(u32),
}

impl Secrets {
    /// The beginning of `bytes` in one line, each secret a star.
    fn without(&mut self, bytes: &[u8]) -> String {
        let mut shown = Vec::with_capacity(bytes.len().min(SHOWN_BYTES_MAX));
        let mut before = false;
        for &byte in bytes {
            let hidden = self.hides(byte);
            if shown.len() < SHOWN_BYTES_MAX && !(hidden && before) {
                shown.push(if hidden { b'*' } else { byte });
            }
            before = hidden;
        }
        escaped(&shown, bytes.len() > SHOWN_BYTES_MAX)
    }

    fn hides(&mut self, byte: u8) -> bool {
        self.window = self.window << 8 | u64::from(byte);
        match self.hidden {
            Hidden::Header if byte != b'\n' && byte != 0 => return true,
            Hidden::Secret(left) if left > 0 => {
                self.hidden = Hidden::Secret(left - 1);
                return true;
            }
            Hidden::Length(1) => {
                let length = self.window as u32;
                let length = if length > SECRET_BYTES_MAX { 0 } else { length };
                self.hidden = Hidden::Secret(length);
            }
            Hidden::Length(left) => self.hidden = Hidden::Length(left - 1),
            Hidden::Nothing | Hidden::Header | Hidden::Secret(_) => {
                self.hidden = match self.window.to_be_bytes() {
                    [b'p', b'a', b's', b's', b'c', b'o', b'd', b'e'] => Hidden::Header,
                    // Class connection, method update-secret.
                    [.., 0, 10, 0, 70] => Hidden::Length(4),
                    _ => Hidden::Nothing,
                };
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_one_bounded_line() {
        assert_eq!(Secrets::default().without(b"SEND\na:\xff\n\nx\0"), r"SEND\na:\xff\n\nx\x00");
        let line = Secrets::default().without(&[0xff; 3 * SHOWN_BYTES_MAX]);
        assert_eq!(line.len(), 4 * SHOWN_BYTES_MAX + 3);
        assert!(line.ends_with(r"\xff..."));
    }

    #[test]
    fn secrets_are_left_out_wherever_a_read_ends() {
        let stomp = b"CONNECT\npasscode:tea time\nhost:/\n\n\0";
        let amqp = b"\x01\0\0\0\0\0\x11\0\x0a\0\x46\0\0\0\x08tea time\x01r\xce next";
        for (bytes, secret, rest) in
            [(&stomp[..], "passcode*", r"\nhost:/\n\n\x00"), (amqp, "F", r"\x01r\xce next")]
        {
            for cut in 0..bytes.len() {
                let mut secrets = Secrets::default();
                let (first, second) = bytes.split_at(cut);
                let text = secrets.without(first) + &secrets.without(second);
                // A star each, if the cut goes through it.
                let text = text.replace("**", "*");
                assert!(text.contains(secret) && text.ends_with(&format!("*{rest}")), "{text}");
                assert!(!text.contains("tea") && !text.contains("time"), "{text}");
            }
        }
    }
}
