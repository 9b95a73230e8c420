//! Frames (AMQP 0-9-1 section 4.2.3): type, channel, size, payload, end mark.

use crate::fault::{Fault, ReplyCode, show_bytes};
use bytes::{Buf, Bytes, BytesMut};

pub(crate) const FRAME_HEADER_BYTES: usize = 7;
/// Everything of a frame that is not payload.
pub(crate) const FRAME_OVERHEAD: usize = 8;
pub(crate) const FRAME_END: u8 = 0xCE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Method = 1,
    Header = 2,
    Body = 3,
    Heartbeat = 8,
}

impl FrameKind {
    fn decode(octet: u8) -> Option<Self> {
        Some(match octet {
            1 => Self::Method,
            2 => Self::Header,
            3 => Self::Body,
            8 => Self::Heartbeat,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    pub(crate) channel: u16,
    /// Shares the read buffer.
    pub(crate) payload: Bytes,
}

impl Frame {
    /// Takes the first frame off `input` if it is whole. Type and size are checked as soon as
    /// they are there, so that nothing is buffered for a frame that will be refused.
    pub(crate) fn take(input: &mut BytesMut, frame_max: u32) -> Result<Option<Self>, Fault> {
        let Some(header) = input.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let [octet, c1, c0, s3, s2, s1, s0] = *header;
        let channel = u16::from_be_bytes([c1, c0]);
        let size = u32::from_be_bytes([s3, s2, s1, s0]) as usize;
        let size_max = frame_max as usize - FRAME_OVERHEAD;
        if size > size_max {
            let text =
                format!("type {octet}, all octets = <<>>: {{frame_too_large,{size},{size_max}}}");
            return Err(Fault::new(ReplyCode::FRAME_ERROR, text));
        }
        let Some(kind) = FrameKind::decode(octet) else {
            let there = &input[FRAME_HEADER_BYTES..];
            let octets = show_bytes(&there[..size.min(there.len())]);
            let text = format!("type {octet}, all octets = {octets}: unknown_frame");
            return Err(Fault::new(ReplyCode::FRAME_ERROR, text));
        };
        let Some(&end) = input.get(FRAME_HEADER_BYTES + size) else { return Ok(None) };
        if end != FRAME_END {
            let octets = show_bytes(&input[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + size]);
            let text =
                format!("type {octet}, all octets = {octets}: {{invalid_frame_end_marker,{end}}}");
            return Err(Fault::new(ReplyCode::FRAME_ERROR, text));
        }
        input.advance(FRAME_HEADER_BYTES);
        let payload = input.split_to(size).freeze();
        input.advance(1);
        Ok(Some(Self { kind, channel, payload }))
    }

    /// What RabbitMQ says about a frame that has no business where it came.
    pub(crate) fn unexpected(&self) -> Fault {
        let octets = show_bytes(&self.payload);
        let text = format!("type {}, all octets = {octets}", self.kind as u8);
        Fault::new(ReplyCode::UNEXPECTED_FRAME, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_waits_until_it_is_whole() {
        let whole = [1, 0, 5, 0, 0, 0, 2, 7, 8, FRAME_END];
        for end in 0..whole.len() {
            let mut input = BytesMut::from(&whole[..end]);
            assert_eq!(Frame::take(&mut input, 4096), Ok(None));
            assert_eq!(input.len(), end);
        }
        let mut input = BytesMut::from(&whole[..]);
        let frame = Frame::take(&mut input, 4096).unwrap().unwrap();
        assert_eq!((frame.kind, frame.channel), (FrameKind::Method, 5));
        assert_eq!(&frame.payload[..], [7, 8]);
        assert!(input.is_empty());
    }

    #[test]
    fn bad_frames_are_refused_before_they_are_buffered() {
        let text = |bytes: &[u8]| {
            Frame::take(&mut BytesMut::from(bytes), 131_072).unwrap_err().reply_text()
        };
        assert_eq!(
            text(&[3, 0, 1, 0, 3, 0x0d, 0x40]),
            "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,200000,131064}"
        );
        assert_eq!(
            text(&[9, 0, 1, 0, 0, 0, 1, b'x', FRAME_END]),
            "FRAME_ERROR - type 9, all octets = <<\"x\">>: unknown_frame"
        );
        assert_eq!(
            text(&[1, 0, 1, 0, 0, 0, 4, 0, 20, 0, 10, 0]),
            "FRAME_ERROR - type 1, all octets = <<0,20,0,10>>: {invalid_frame_end_marker,0}"
        );
    }
}
