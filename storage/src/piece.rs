//! Pieces: what a group is cut into, so that no LMDB value spans more than sixteen pages. LMDB has
//! to search its free list for a contiguous run for longer ones, and slows down with use.
//!
//! A piece is `crc32 (u32) · kind (u8) · 3 zero bytes · content`, all numbers big endian. The crc
//! covers the key too: a piece that is found under another's key is damage. Pieces are cut at records, so that one message can be read without the rest of its group; a record
//! that is longer than a piece goes on in parts 1, 2, … of the same key.

use crate::StorageError;
use bytes::{BufMut, Bytes};
use understudy_model::{Damage, GROUP_HEADER_BYTES, Group, Lsn, Place};

/// Sixteen pages of 4 KiB less LMDB's header.
pub(crate) const PIECE_BYTES_MAX: usize = 65_520;
pub(crate) const PIECE_HEADER_BYTES: usize = 8;
pub(crate) const CONTENT_BYTES_MAX: usize = PIECE_BYTES_MAX - PIECE_HEADER_BYTES;

/// First piece of a group: its content begins with the group's header.
pub(crate) const GROUP_START: u8 = 1;
/// Begins with a record.
pub(crate) const RECORDS: u8 = 2;
/// Goes on with the record of the piece before.
pub(crate) const CONTINUATION: u8 = 3;

/// LSN of the first record in the piece, and the number of the part.
pub(crate) type Key = [u8; 10];

pub(crate) fn key(lsn: Lsn, part: u16) -> Key {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&lsn.0.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

pub(crate) fn lsn_of(key: &[u8]) -> Lsn {
    key.first_chunk::<8>().map_or(Lsn::ZERO, |bytes| Lsn(u64::from_be_bytes(*bytes)))
}

/// Writes one piece into `out`, which is cleared first.
pub(crate) fn encode(key: &Key, kind: u8, content: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.put_u32(0);
    out.put_slice(&[kind, 0, 0, 0]);
    out.put_slice(content);
    let crc = checksum(key, &out[4..]);
    out[..4].copy_from_slice(&crc.to_be_bytes());
}

fn checksum(key: &[u8], rest: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(rest);
    crc.finalize()
}

/// The kind and the content, verified.
pub(crate) fn decode<'a>(
    place: Place,
    key: &[u8],
    piece: &'a [u8],
) -> Result<(u8, &'a [u8]), StorageError> {
    let damage = Damage { place, lsn: lsn_of(key) };
    let Some((crc, rest)) = piece.split_first_chunk::<4>() else {
        return Err(StorageError::damaged(damage, "short piece"));
    };
    if checksum(key, rest) != u32::from_be_bytes(*crc) {
        return Err(StorageError::damaged(damage, "checksum of a piece"));
    }
    match rest {
        [kind, _, _, _, content @ ..] => Ok((*kind, content)),
        _ => Err(StorageError::damaged(damage, "short piece")),
    }
}

/// Whether a piece says, unverified, that a group begins with it.
pub(crate) fn begins_group(piece: &[u8]) -> bool {
    piece.get(4) == Some(&GROUP_START)
}

/// Cuts a group into pieces and gives each, encoded, to `put`.
pub(crate) fn cut_group(
    group: &Group,
    scratch: &mut Vec<u8>,
    mut put: impl FnMut(Key, &[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let bytes = group.bytes();
    let (mut begin, mut begin_lsn, mut kind) = (0, group.first(), GROUP_START);
    let mut lsn = group.first();
    loop {
        let next = lsn.next();
        let end = group.record_offset(next).unwrap_or(bytes.len());
        if end - begin > CONTENT_BYTES_MAX && lsn > begin_lsn {
            // The record at `lsn` does not fit any more: close the piece in front of it.
            let at = group.record_offset(lsn).unwrap_or(begin);
            put_parts(begin_lsn, kind, &bytes[begin..at], scratch, &mut put)?;
            (begin, begin_lsn, kind) = (at, lsn, RECORDS);
            continue;
        }
        if lsn == group.last() {
            return put_parts(begin_lsn, kind, &bytes[begin..], scratch, &mut put);
        }
        lsn = next;
    }
}

/// One piece, or several parts if a single record is longer than a piece.
pub(crate) fn put_parts(
    lsn: Lsn,
    kind: u8,
    content: &[u8],
    scratch: &mut Vec<u8>,
    mut put: impl FnMut(Key, &[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    for (part, content) in content.chunks(CONTENT_BYTES_MAX).enumerate() {
        let part = u16::try_from(part).map_err(|_| StorageError::corrupt(lsn, "too long"))?;
        let key = key(lsn, part);
        encode(&key, if part == 0 { kind } else { CONTINUATION }, content, scratch);
        put(key, scratch)?;
    }
    Ok(())
}

/// Records of a log piece: where each begins behind its length prefix. `content` may be several
/// parts joined. A last one that is cut short is an error: a part of it is not there.
pub(crate) fn records_of_log(
    kind: u8,
    first: Lsn,
    content: &Bytes,
) -> impl Iterator<Item = Result<(Lsn, Bytes), StorageError>> {
    let mut at = if kind == GROUP_START { GROUP_HEADER_BYTES } else { 0 };
    let mut lsn = first;
    std::iter::from_fn(move || {
        if at >= content.len() {
            return None;
        }
        let length = content.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>());
        let begin = at + 4;
        let end = length.map(|length| begin + u32::from_be_bytes(*length) as usize);
        let Some(end) = end.filter(|end| *end <= content.len()) else {
            at = content.len();
            return Some(Err(StorageError::damaged(
                Damage { place: Place::Log, lsn: first },
                "a part is missing",
            )));
        };
        at = end;
        let found = (lsn, content.slice(begin..end));
        lsn = lsn.next();
        Some(Ok(found))
    })
}

/// Records of a cold piece: each behind its own LSN and length.
pub(crate) fn records_of_cold(
    first: Lsn,
    content: &Bytes,
) -> impl Iterator<Item = Result<(Lsn, Bytes), StorageError>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= content.len() {
            return None;
        }
        let head = content.get(at..at + 12);
        let length = head.and_then(|head| head.last_chunk::<4>());
        let begin = at + 12;
        let end = length.map(|length| begin + u32::from_be_bytes(*length) as usize);
        let (Some(head), Some(end)) = (head, end.filter(|end| *end <= content.len())) else {
            at = content.len();
            return Some(Err(StorageError::damaged(
                Damage { place: Place::Cold, lsn: first },
                "a part is missing",
            )));
        };
        at = end;
        Some(Ok((lsn_of(head), content.slice(begin..end))))
    })
}
