//! How each type of field lies on the wire: integers as varints, texts and bytes with their
//! length before them.

use crate::codec::LIST_ITEMS_MAX;
use bytes::Bytes;
use understudy_model::{AckMode, Malformed, Reader, Text, WriteBuffer, Writer};

/// A frame being read: what is left of it, and the buffer that its bytes are shared from.
pub(crate) struct FrameReader<'a> {
    pub(crate) whole: &'a Bytes,
    pub(crate) rest: Reader<'a>,
    text_bytes_max: usize,
}

impl<'a> FrameReader<'a> {
    pub(crate) fn new(whole: &'a Bytes, text_bytes_max: usize) -> Self {
        Self { whole, rest: Reader(whole), text_bytes_max }
    }
}

/// The size comes first because a frame's length stands before it, and a shared body may
/// already have left the buffer when the end is known.
pub(crate) trait Field: Sized {
    fn size(&self) -> usize;
    fn put(&self, out: &mut WriteBuffer);
    fn take(from: &mut FrameReader<'_>) -> Result<Self, Malformed>;
}

pub(crate) fn varint_size(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(crate) fn put_varint(out: &mut WriteBuffer, value: u64) {
    Writer(out.tail()).varint(value);
}

macro_rules! varint_field {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn size(&self) -> usize {
                varint_size(u64::from(*self))
            }
            fn put(&self, out: &mut WriteBuffer) {
                put_varint(out, u64::from(*self));
            }
            fn take(from: &mut FrameReader<'_>) -> Result<Self, Malformed> {
                Self::try_from(from.rest.varint()?).map_err(|_| Malformed("number: too large"))
            }
        }
    )*};
}

varint_field!(u16, u32, u64);

impl Field for i32 {
    fn size(&self) -> usize {
        zigzag(*self).size()
    }
    fn put(&self, out: &mut WriteBuffer) {
        zigzag(*self).put(out);
    }
    fn take(from: &mut FrameReader<'_>) -> Result<Self, Malformed> {
        let folded = u32::take(from)?;
        Ok((folded >> 1) as Self ^ -((folded & 1) as Self))
    }
}

/// Small negative numbers stay short.
fn zigzag(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

impl Field for u128 {
    fn size(&self) -> usize {
        16
    }
    fn put(&self, out: &mut WriteBuffer) {
        Writer(out.tail()).u128(*self);
    }
    fn take(from: &mut FrameReader<'_>) -> Result<Self, Malformed> {
        from.rest.u128()
    }
}

impl Field for bool {
    fn size(&self) -> usize {
        1
    }
    fn put(&self, out: &mut WriteBuffer) {
        Writer(out.tail()).bool(*self);
    }
    fn take(from: &mut FrameReader<'_>) -> Result<Self, Malformed> {
        from.rest.bool()
    }
}

impl Field for AckMode {
    fn size(&self) -> usize {
        1
    }
    fn put(&self, out: &mut WriteBuffer) {
        (*self == Self::Manual).put(out);
    }
    fn take(from: &mut FrameReader<'_>) -> Result<Self, Malformed> {
        Ok(if bool::take(from)? { Self::Manual } else { Self::Auto })
    }
}

impl Field for Text {
    fn size(&self) -> usize {
        varint_size(self.len() as u64) + self.len()
    }
    fn put(&self, out: &mut WriteBuffer) {
        Writer(out.tail()).text(self);
    }
    fn take(from: &mut FrameReader<'_>) -> Result<Self, Malformed> {
        let bytes = from.rest.bytes()?;
        if bytes.len() > from.text_bytes_max {
            return Err(Malformed("text: too long"));
        }
        Self::try_from(from.whole.slice_ref(bytes)).map_err(|_| Malformed("text: not UTF-8"))
    }
}

impl Field for Bytes {
    fn size(&self) -> usize {
        varint_size(self.len() as u64) + self.len()
    }
    fn put(&self, out: &mut WriteBuffer) {
        put_varint(out, self.len() as u64);
        out.put_bytes(self);
    }
    fn take(from: &mut FrameReader<'_>) -> Result<Self, Malformed> {
        Ok(from.whole.slice_ref(from.rest.bytes()?))
    }
}

impl<T: Field> Field for Vec<T> {
    fn size(&self) -> usize {
        varint_size(self.len() as u64) + self.iter().map(Field::size).sum::<usize>()
    }
    fn put(&self, out: &mut WriteBuffer) {
        put_varint(out, self.len() as u64);
        self.iter().for_each(|item| item.put(out));
    }
    fn take(from: &mut FrameReader<'_>) -> Result<Self, Malformed> {
        let count = usize::try_from(from.rest.varint()?).unwrap_or(usize::MAX);
        // Every item has at least one byte: a count beyond that is a lie, and reserves nothing.
        if count > from.rest.0.len() || count > LIST_ITEMS_MAX {
            return Err(Malformed("list: too many items"));
        }
        (0..count).map(|_| T::take(from)).collect()
    }
}

/// What is wanted of a publish, one bit each on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishFlags {
    /// Answer with a confirm, nack or refusal.
    pub confirm: bool,
    /// Hand the message back if no queue takes it.
    pub mandatory: bool,
    /// On the default exchange: declare the queue named by the routing key if it is missing.
    pub declare_missing: bool,
    /// The sequence is the producer's: a repeat is confirmed and not stored again.
    pub dedup: bool,
}

impl Field for PublishFlags {
    fn size(&self) -> usize {
        1
    }
    fn put(&self, out: &mut WriteBuffer) {
        let flags = [self.confirm, self.mandatory, self.declare_missing, self.dedup];
        let bits = flags.iter().rev().fold(0, |bits, &flag| bits << 1 | u8::from(flag));
        Writer(out.tail()).u8(bits);
    }
    fn take(from: &mut FrameReader<'_>) -> Result<Self, Malformed> {
        let bits = from.rest.u8()?;
        if bits > 0b1111 {
            return Err(Malformed("publish flags"));
        }
        Ok(Self {
            confirm: bits & 1 != 0,
            mandatory: bits & 2 != 0,
            declare_missing: bits & 4 != 0,
            dedup: bits & 8 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: Field + PartialEq + std::fmt::Debug>(value: T) {
        let mut out = WriteBuffer::default();
        value.put(&mut out);
        assert_eq!(out.len(), value.size(), "size of {value:?}");
        let bytes = out.take_all();
        let mut reader = FrameReader::new(&bytes, 255);
        assert_eq!(T::take(&mut reader).unwrap(), value);
        assert!(reader.rest.0.is_empty());
    }

    #[test]
    fn numbers_round_trip_at_their_edges() {
        for shift in 0..64 {
            round_trip(1u64 << shift);
            round_trip((1u64 << shift) - 1);
        }
        round_trip(u64::MAX);
        for value in [0, 1, -1, 63, -64, 64, i32::MAX, i32::MIN] {
            round_trip(value);
        }
        for value in 0..16 {
            let flag = |bit: u8| value >> bit & 1 == 1;
            round_trip(PublishFlags {
                confirm: flag(0),
                mandatory: flag(1),
                declare_missing: flag(2),
                dedup: flag(3),
            });
        }
    }

    #[test]
    fn numbers_too_large_for_their_field_are_refused() {
        let mut out = WriteBuffer::default();
        (u64::from(u32::MAX) + 1).put(&mut out);
        let bytes = out.take_all();
        assert!(u32::take(&mut FrameReader::new(&bytes, 255)).is_err());
        assert!(i32::take(&mut FrameReader::new(&bytes, 255)).is_err());
    }

    #[test]
    fn a_list_that_lies_about_its_length_is_refused() {
        let bytes = Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f, 1, 2]);
        assert!(Vec::<u64>::take(&mut FrameReader::new(&bytes, 255)).is_err());
    }
}
