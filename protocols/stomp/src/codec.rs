//! Frames in and out.

mod decode;
mod escape;
mod frame;
mod write;

pub(crate) use decode::{Decoder, Limits};
pub(crate) use escape::escape;
pub(crate) use frame::{Command, Frame, Headers, Version};
pub(crate) use write::{FRAME_END, put_error, put_header, put_receipt};

/// The codec alone, for `benches/codec.rs`: how many frames of 1.2 are at the front of `input`.
#[doc(hidden)]
pub fn count_frames(input: &mut bytes::BytesMut) -> usize {
    let limits = Limits { message_bytes_max: 1 << 20, header_bytes_max: 1 << 16, headers_max: 99 };
    let mut decoder = Decoder::new(limits);
    decoder.version = Version::V12;
    std::iter::from_fn(|| decoder.next(input).ok().flatten()).count()
}
