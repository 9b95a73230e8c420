//! Frames as the other side sees them, read by other means than the codec's.

use std::ops::Range;

/// The session's frames, as they are written.
#[derive(Default)]
pub(crate) struct Written {
    rest: Vec<u8>,
    ended: bool,
}

impl Written {
    pub(crate) fn check(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(length) = self.take_one() {
            self.rest.drain(..length);
        }
    }

    pub(crate) fn check_end(&self) {
        assert!(self.rest.is_empty(), "half a frame: {:?}", String::from_utf8_lossy(&self.rest));
    }

    fn take_one(&mut self) -> Option<usize> {
        if self.rest.first() == Some(&b'\n') {
            return Some(1);
        }
        let head_length = self.rest.windows(2).position(|two| two == b"\n\n")?;
        let head = std::str::from_utf8(&self.rest[..head_length]).expect("headers are UTF-8");
        assert!(!self.ended, "a frame behind an ERROR: {head}");
        let mut lines = head.split('\n');
        let command = lines.next().unwrap();
        let headers: Vec<(&str, &str)> =
            lines.map(|line| line.split_once(':').expect("a header has a colon")).collect();
        assert!(!head.contains(['\0', '\r']), "{head:?}");
        let get = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        let required: &[&str] = match command {
            "CONNECTED" => &["version", "session", "server", "heart-beat"],
            "MESSAGE" => &["destination", "message-id", "content-length"],
            "RECEIPT" => &["receipt-id"],
            "ERROR" => &["message", "content-length"],
            other => panic!("no frame of a server: {other}"),
        };
        required.iter().for_each(|name| assert!(get(name).is_some(), "no {name} in {head}"));
        let length = get("content-length").map_or(0, |length| length.parse().unwrap());
        let end = head_length + 2 + length;
        assert_eq!(self.rest.get(end), Some(&0), "{head}");
        self.ended = command == "ERROR";
        Some(end + 1)
    }
}

/// From the command to the NUL, as far as `content-length` of a SEND goes.
pub(crate) fn borders(input: &[u8]) -> Vec<Range<usize>> {
    let mut borders = Vec::new();
    let mut at = 0;
    loop {
        at += input[at..].iter().take_while(|b| matches!(b, b'\n' | b'\r' | 0)).count();
        let rest = &input[at..];
        let Some(head) = rest.windows(2).position(|two| two == b"\n\n" || two == b"\n\r") else {
            return borders;
        };
        let text = String::from_utf8_lossy(&rest[..head]);
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|text| text.trim().parse::<usize>().ok()).unwrap_or(0);
        let body = head.saturating_add(2).saturating_add(length);
        let Some(end) = rest.get(body..).and_then(|rest| rest.iter().position(|b| *b == 0)) else {
            return borders;
        };
        borders.push(at..at + body + end + 1);
        at += body + end + 1;
    }
}

/// ACKs and NACKs name messages of the session that was recorded.
pub(crate) fn with_own_session_id(input: &[u8], own: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.windows(10).position(|ten| ten == b"@@session-") {
        out.extend_from_slice(&rest[..at + 2]);
        out.extend_from_slice(own.as_bytes());
        let behind = &rest[at + 2..];
        let id = behind.iter().position(|b| *b == b'@').unwrap_or(behind.len());
        rest = &behind[id..];
    }
    out.extend_from_slice(rest);
    out
}
