//! Reading and writing the primitive pieces of log records and peer messages.
//!
//! Integers are LEB128 varints unless a width is named; texts and bytes are length-prefixed.

use crate::Text;
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;

/// The bytes are not what the format says. Carries the name of the piece that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Appends primitive pieces to a buffer.
pub struct Writer<'a>(pub &'a mut BytesMut);

impl Writer<'_> {
    pub fn u8(&mut self, value: u8) {
        self.0.put_u8(value);
    }

    pub fn bool(&mut self, value: bool) {
        self.0.put_u8(u8::from(value));
    }

    pub fn u128(&mut self, value: u128) {
        self.0.put_u128(value);
    }

    /// Unsigned LEB128, one to ten bytes.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.put_u8((value as u8) | 0x80);
            value >>= 7;
        }
        self.0.put_u8(value as u8);
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.varint(value.len() as u64);
        self.0.put_slice(value);
    }

    pub fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }
}

/// How many bytes [`Writer::varint`] writes.
pub(crate) fn varint_len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// A hash over parts of state, the same on every platform.
#[derive(Default)]
pub struct Digest(xxhash_rust::xxh3::Xxh3Default);

impl Digest {
    pub fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    pub fn finish(&self) -> u128 {
        self.0.digest128()
    }
}

/// Takes primitive pieces off the front of a slice.
#[derive(Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.0.split_first().ok_or(Malformed("byte"))?;
        self.0 = rest;
        Ok(first)
    }

    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("boolean")),
        }
    }

    pub fn u128(&mut self) -> Result<u128, Malformed> {
        let bytes = self.0.first_chunk::<16>().ok_or(Malformed("128-bit number"))?;
        self.0 = &self.0[16..];
        Ok(u128::from_be_bytes(*bytes))
    }

    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("varint"))
    }

    pub fn varint_u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed("32-bit number"))
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        if len > self.0.len() {
            return Err(Malformed("length"));
        }
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(taken)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.varint()?;
        self.take(usize::try_from(len).map_err(|_| Malformed("length"))?)
    }

    pub fn str(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("text"))
    }

    pub fn text(&mut self) -> Result<Text, Malformed> {
        self.str().map(Text::from)
    }

    pub fn owned_bytes(&mut self) -> Result<Bytes, Malformed> {
        self.bytes().map(Bytes::copy_from_slice)
    }

    /// Everything must have been read.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("trailing bytes")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_their_edges() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut buffer = BytesMut::new();
            Writer(&mut buffer).varint(value);
            assert_eq!(buffer.len(), varint_len(value));
            let mut reader = Reader(&buffer);
            assert_eq!(reader.varint(), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        assert_eq!(Reader(&[5, 1, 2]).bytes(), Err(Malformed("length")));
        assert!(Reader(&[0xff; 11]).varint().is_err());
    }
}
