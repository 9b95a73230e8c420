//! The incremental reader: a frame that arrives in pieces is scanned once, whatever its pieces.

use super::{Command, Frame, Headers, Version, escape::unescape};
use crate::error::StompError;
use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr2};
use std::borrow::Cow;
use understudy_model::Text;

/// Longest line of a head; a whole head may have more.
const LINE_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) message_bytes_max: usize,
    pub(crate) header_bytes_max: usize,
    pub(crate) headers_max: usize,
}

pub(crate) struct Decoder {
    limits: Limits,
    /// Whose escapes are read.
    pub(crate) version: Version,
    scan: Scan,
}

/// Where reading stopped. Positions count from the front of the input.
enum Scan {
    Head {
        line_start: usize,
        scanned: usize,
        lines: usize,
    },
    /// The head is taken off the input; its body follows.
    Body {
        head: Frame,
        length: Option<usize>,
        scanned: usize,
    },
}

impl Scan {
    const START: Self = Self::Head { line_start: 0, scanned: 0, lines: 0 };
}

impl Decoder {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, version: Version::V10, scan: Scan::START }
    }

    /// The next whole frame off the front of `input`, if it is there. After an error the input
    /// has no meaning any more.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, StompError> {
        if let Scan::Head { .. } = self.scan {
            let Some(length) = self.head_length(input)? else { return Ok(None) };
            let head = self.parse_head(input.split_to(length).freeze())?;
            let length = self.body_length(&head).map_err(|error| error.of(&head.headers))?;
            self.scan = Scan::Body { head, length, scanned: 0 };
        }
        match self.body_length_seen(input)? {
            None => Ok(None),
            Some(length) => {
                let body = input.split_to(length).freeze();
                input.advance(1);
                match std::mem::replace(&mut self.scan, Scan::START) {
                    Scan::Body { head, .. } => Ok(Some(Frame { body, ..head })),
                    Scan::Head { .. } => Ok(None),
                }
            }
        }
    }

    /// Length of the head with its empty line, once that has come.
    fn head_length(&mut self, input: &mut BytesMut) -> Result<Option<usize>, StompError> {
        let Scan::Head { line_start, scanned, lines } = &mut self.scan else { return Ok(None) };
        if *scanned == 0 {
            // Heart-beats, the EOLs that may follow a frame, and stray NULs.
            let between = |b: &u8| matches!(b, b'\n' | b'\r' | 0);
            let skipped = input.iter().position(|b| !between(b)).unwrap_or(input.len());
            input.advance(skipped);
        }
        while let Some(at) = memchr2(b'\n', 0, &input[*scanned..]).map(|at| at + *scanned) {
            if input[at] == 0 {
                return Err(StompError::malformed("The frame ends inside its headers.\n"));
            }
            *scanned = at + 1;
            let line = &input[*line_start..at];
            check_head(line.len(), *scanned, &self.limits)?;
            if matches!(line, b"" | b"\r") {
                return Ok(Some(*scanned));
            }
            *line_start = *scanned;
            *lines += 1;
            // The first line is the command.
            if *lines > self.limits.headers_max + 1 {
                return Err(StompError::malformed("The frame has too many headers.\n"));
            }
        }
        *scanned = input.len();
        check_head(*scanned - *line_start, *scanned, &self.limits)?;
        Ok(None)
    }

    fn parse_head(&self, head: Bytes) -> Result<Frame, StompError> {
        let head = Text::try_from(head);
        let head = head.map_err(|_| StompError::malformed("The headers are not UTF-8.\n"))?;
        let mut lines = head.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        let command = Command::parse(lines.next().unwrap_or_default());
        // CONNECT is never escaped, so that 1.0 clients can send it.
        let connect = command == Command::Connect;
        let version = if connect { Version::V10 } else { self.version };
        // 1.0 clients write `name: value`, as the examples of that version did. Which version a
        // CONNECT speaks is not known yet.
        let trim = !connect && version == Version::V10;
        let mut headers = Headers::default();
        // The others are read for their receipt.
        let mut first_error = None;
        for line in lines.take_while(|line| !line.is_empty()) {
            match parse_header(&head, line, version, trim) {
                Ok((name, value)) => headers.insert_first(name, value),
                Err(error) => _ = first_error.get_or_insert(error),
            }
        }
        match first_error {
            None => Ok(Frame { command, headers, body: Bytes::new() }),
            Some(error) => Err(error.of(&headers)),
        }
    }

    /// Only SEND has a body; clients are known to send wrong lengths with other frames.
    fn body_length(&self, head: &Frame) -> Result<Option<usize>, StompError> {
        let length = match head.command {
            Command::Send => head.headers.number::<usize>(&["content-length"])?,
            _ => None,
        };
        match length {
            Some(length) if length > self.limits.message_bytes_max => Err(too_long(&self.limits)),
            length => Ok(length),
        }
    }

    /// The body's length, once it and the NUL behind it have come.
    fn body_length_seen(&mut self, input: &[u8]) -> Result<Option<usize>, StompError> {
        let Scan::Body { head, length, scanned } = &mut self.scan else { return Ok(None) };
        if let Some(length) = *length {
            return match input.get(length) {
                None => Ok(None),
                Some(0) => Ok(Some(length)),
                Some(_) => {
                    let text = "There is no NUL where content-length puts the body's end.\n";
                    Err(StompError::malformed(text).of(&head.headers))
                }
            };
        }
        let end = memchr(0, &input[*scanned..]).map(|at| at + *scanned);
        *scanned = input.len();
        if end.unwrap_or(*scanned) > self.limits.message_bytes_max {
            return Err(too_long(&self.limits).of(&head.headers));
        }
        Ok(end)
    }
}

/// `line` is a part of `head`, of which the texts are slices.
fn parse_header(
    head: &Text,
    line: &str,
    version: Version,
    trim: bool,
) -> Result<(Text, Text), StompError> {
    let Some((name, value)) = line.split_once(':') else {
        return Err(StompError::malformed(format!("Header without colon: '{line}'\n")));
    };
    let value = if trim { value.trim_start() } else { value };
    let text = |part| match unescape(part, version) {
        Ok(Cow::Borrowed(part)) => Ok(head.slice_ref(part)),
        Ok(Cow::Owned(part)) => Ok(Text::from(part)),
        Err(_) => Err(StompError::malformed(format!("Undefined escape in header: '{line}'\n"))),
    };
    Ok((text(name)?, text(value)?))
}

fn too_long(limits: &Limits) -> StompError {
    let most = limits.message_bytes_max;
    StompError::new("Frame too large", format!("A body may have {most} bytes.\n"))
}

fn check_head(line: usize, head: usize, limits: &Limits) -> Result<(), StompError> {
    if line > LINE_BYTES_MAX || head > limits.header_bytes_max {
        return Err(StompError::new("Frame too large", "The headers are too long.\n"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "second_opinion.rs"]
mod second_opinion;
