use crate::samples;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeSet;
use understudy_native::*;

const DECODER: Decoder = Decoder { frame_bytes_max: 1 << 20, text_bytes_max: NAME_BYTES_MAX };

fn encode(frame: &Frame) -> Bytes {
    let mut out = WriteBuffer::default();
    frame.encode(&mut out);
    out.take_all()
}

/// A frame of this kind and these fields, its length right whatever they are.
fn decode(kind_and_fields: &[u8]) -> Result<Option<Frame>, WireError> {
    let mut input = BytesMut::new();
    input.put_u32(kind_and_fields.len() as u32);
    input.put_slice(kind_and_fields);
    DECODER.next(&mut input)
}

#[test]
fn every_frame_round_trips_and_every_truncation_is_refused() {
    for frame in samples::frames() {
        let bytes = encode(&frame);
        assert_eq!(bytes.len(), 4 + frame.length(), "{frame:?}");
        let inside = &bytes[4..];
        for end in 0..inside.len() {
            assert!(decode(&inside[..end]).is_err(), "cut at {end}: {frame:?}");
        }
        let longer = [inside, &[0]].concat();
        assert!(decode(&longer).is_err(), "a byte too much: {frame:?}");
        assert_eq!(decode(inside), Ok(Some(frame)));
    }
}

#[test]
fn the_samples_leave_no_kind_out() {
    let samples: BTreeSet<u8> = samples::frames().iter().map(Frame::kind).collect();
    let unknown = WireError::Malformed(Malformed("frame: unknown kind"));
    let known = (0..=255).filter(|&kind| decode(&[kind]) != Err(unknown)).collect();
    assert_eq!(samples, known);
}

#[test]
fn frames_come_whole_however_the_bytes_come() {
    let frames = samples::frames();
    let bytes: Vec<u8> = frames.iter().flat_map(|frame| encode(frame).to_vec()).collect();
    for step in [1, 7, 100, bytes.len()] {
        let (mut input, mut seen) = (BytesMut::new(), Vec::new());
        for chunk in bytes.chunks(step) {
            input.put_slice(chunk);
            while let Some(frame) = DECODER.next(&mut input).unwrap() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, frames, "in steps of {step}");
        assert!(input.is_empty());
    }
}

#[test]
fn a_body_shares_the_buffer_it_came_in() {
    let mut input = BytesMut::from(&encode(&samples::publish(1, &[7; 100]).into())[..]);
    let range = input.as_ptr_range();
    let Ok(Some(Frame::Publish(publish))) = DECODER.next(&mut input) else { panic!("no publish") };
    assert!(range.contains(&publish.body.as_ptr()));
}

#[test]
fn limits_are_kept_before_anything_is_reserved() {
    let mut long = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 1][..]);
    assert!(matches!(DECODER.next(&mut long), Err(WireError::FrameTooLong { .. })));

    let name = |length: usize| {
        let name = Text::from("x".repeat(length));
        decode(&encode(&PurgeQueue { request: 1, name }.into())[4..])
    };
    assert!(name(255).is_ok());
    assert!(name(256).is_err());
}
