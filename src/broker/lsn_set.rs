//! An ordered set of LSNs: which messages of a queue are unsettled.
//!
//! A queue's messages arrive in ascending order and leave mostly from the front, so the set is a
//! deque of chunks of 4,096 consecutive LSNs, each held in the smallest of three forms. A backlog
//! without gaps costs a few bytes per chunk, one with gaps a bit or two per LSN.

mod form;

use self::form::{Form, WORDS};
use std::collections::VecDeque;
use understudy_model::{Digest, Lsn, Malformed, Reader, Writer};

const CHUNK_BITS: u32 = 12;
const CHUNK_SPAN: u64 = 1 << CHUNK_BITS;

#[derive(Clone, Debug, Default)]
pub(crate) struct LsnSet {
    /// Ascending by key; never an empty chunk.
    chunks: VecDeque<Chunk>,
    len: u64,
}

#[derive(Clone, Debug)]
struct Chunk {
    /// LSN divided by the span.
    key: u64,
    form: Form,
}

impl LsnSet {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Adds an LSN above all that are in the set; anything else is ignored, so that replaying a
    /// command twice does no harm.
    pub(crate) fn push(&mut self, lsn: Lsn) -> bool {
        let (key, offset) = split(lsn);
        match self.chunks.back_mut() {
            Some(back) if back.key > key => return false,
            Some(back) if back.key == key => {
                if offset <= back.form.last() {
                    return false;
                }
                back.form.push(offset);
            }
            _ => self.chunks.push_back(Chunk { key, form: Form::Run(offset, offset) }),
        }
        self.len += 1;
        true
    }

    /// Adds an LSN wherever it belongs; false if it was there.
    pub(crate) fn insert(&mut self, lsn: Lsn) -> bool {
        if self.last().is_none_or(|last| lsn > last) {
            return self.push(lsn);
        }
        let (key, offset) = split(lsn);
        match self.find(key) {
            Ok(at) if self.chunks[at].form.contains(offset) => return false,
            Ok(at) => self.chunks[at].form.insert(offset),
            Err(at) => self.chunks.insert(at, Chunk { key, form: Form::Run(offset, offset) }),
        }
        self.len += 1;
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn contains(&self, lsn: Lsn) -> bool {
        let (key, offset) = split(lsn);
        self.find(key).is_ok_and(|at| self.chunks[at].form.contains(offset))
    }

    pub(crate) fn first(&self) -> Option<Lsn> {
        self.chunks.front().map(|chunk| join(chunk.key, chunk.form.first()))
    }

    pub(crate) fn last(&self) -> Option<Lsn> {
        self.chunks.back().map(|chunk| join(chunk.key, chunk.form.last()))
    }

    /// The smallest member above `lsn`.
    pub(crate) fn next_after(&self, lsn: Lsn) -> Option<Lsn> {
        self.at_or_after(Lsn(lsn.0.checked_add(1)?))
    }

    fn at_or_after(&self, lsn: Lsn) -> Option<Lsn> {
        let (key, offset) = split(lsn);
        let at = match self.find(key) {
            Ok(at) => {
                if let Some(found) = self.chunks[at].form.at_or_after(offset) {
                    return Some(join(key, found));
                }
                at + 1
            }
            Err(at) => at,
        };
        self.chunks.get(at).map(|chunk| join(chunk.key, chunk.form.first()))
    }

    /// Removes all members from `from` to `to`, both included; returns how many there were.
    pub(crate) fn remove_range(&mut self, from: Lsn, to: Lsn) -> u64 {
        if from > to {
            return 0;
        }
        let (from_key, from_offset) = split(from);
        let (to_key, to_offset) = split(to);
        let mut removed = 0;
        let mut at = self.find(from_key).unwrap_or_else(|at| at);
        let begin = at;
        let mut emptied = 0;
        while let Some(chunk) = self.chunks.get_mut(at) {
            if chunk.key > to_key {
                break;
            }
            let low = if chunk.key == from_key { from_offset } else { 0 };
            let high = if chunk.key == to_key { to_offset } else { (CHUNK_SPAN - 1) as u16 };
            removed += chunk.form.remove_range(low, high);
            emptied += usize::from(chunk.form.is_empty());
            at += 1;
        }
        if emptied > 0 {
            self.drop_empty(begin, at);
        }
        self.len -= removed;
        removed
    }

    /// Members from `from` to `to`, both included.
    pub(crate) fn range(&self, from: Lsn, to: Lsn) -> impl Iterator<Item = Lsn> {
        let mut from = Some(from);
        std::iter::from_fn(move || {
            let next = self.at_or_after(from?)?;
            from = next.0.checked_add(1).map(Lsn);
            Some(next)
        })
        .take_while(move |lsn| *lsn <= to)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Lsn> {
        self.range(Lsn(1), Lsn(u64::MAX - 1))
    }

    /// How many members lie between `from` and `to`, both included; costs per chunk.
    pub(crate) fn count_range(&self, from: Lsn, to: Lsn) -> u64 {
        if from > to {
            return 0;
        }
        let (from_key, from_offset) = split(from);
        let (to_key, to_offset) = split(to);
        let begin = self.find(from_key).unwrap_or_else(|at| at);
        let chunks = self.chunks.range(begin..).take_while(|chunk| chunk.key <= to_key);
        chunks
            .map(|chunk| {
                let low = if chunk.key == from_key { from_offset } else { 0 };
                let high = if chunk.key == to_key { to_offset } else { (CHUNK_SPAN - 1) as u16 };
                chunk.form.count_range(low, high)
            })
            .sum()
    }

    /// Stretches of 4,096 LSNs that have members.
    pub(crate) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Adds the members to a digest, in whatever form they are held. Costs per chunk.
    pub(crate) fn add_to(&self, digest: &mut Digest) {
        digest.add(&self.len.to_be_bytes());
        let mut bytes = [0; WORDS * 8];
        for chunk in &self.chunks {
            digest.add(&chunk.key.to_be_bytes());
            let words = chunk.form.words();
            for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
                bytes.copy_from_slice(&word.to_be_bytes());
            }
            digest.add(&bytes);
        }
    }

    /// Runs of consecutive LSNs, as gaps and lengths. The driver does this for each changed queue
    /// when state is saved: it costs per chunk and gap, not per member.
    pub(crate) fn encode(&self, out: &mut Writer<'_>) {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for chunk in &self.chunks {
            chunk.form.each_run(|from, to| {
                let (from, to) = (join(chunk.key, from).0, join(chunk.key, to).0);
                match runs.last_mut() {
                    Some((_, end)) if *end + 1 == from => *end = to,
                    _ => runs.push((from, to)),
                }
            });
        }
        out.varint(runs.len() as u64);
        let mut before = 0;
        for (from, to) in runs {
            out.varint(from - before);
            out.varint(to - from);
            before = to;
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        const SET: Malformed = Malformed("set of LSNs");
        let mut set = Self::default();
        let count = reader.varint()?;
        let mut before = 0u64;
        for _ in 0..count {
            let from = before.checked_add(reader.varint()?).ok_or(SET)?;
            let to = from.checked_add(reader.varint()?).ok_or(SET)?;
            set.push_run(from, to);
            before = to;
        }
        Ok(set)
    }

    fn push_run(&mut self, mut from: u64, to: u64) {
        while from <= to {
            let (key, offset) = split(Lsn(from));
            let end = to.min((key << CHUNK_BITS) + CHUNK_SPAN - 1);
            let fresh = self.chunks.back().is_none_or(|back| back.key < key);
            if fresh {
                let form = Form::Run(offset, split(Lsn(end)).1);
                self.chunks.push_back(Chunk { key, form });
                self.len += end - from + 1;
            } else {
                (from..=end).for_each(|lsn| {
                    self.push(Lsn(lsn));
                });
            }
            from = end + 1;
        }
    }

    fn find(&self, key: u64) -> Result<usize, usize> {
        // Most look-ups are at the front (deliveries, settles) or the back (arrivals).
        match self.chunks.front() {
            Some(front) if front.key == key => Ok(0),
            Some(_) => self.chunks.binary_search_by_key(&key, |chunk| chunk.key),
            None => Err(0),
        }
    }

    fn drop_empty(&mut self, begin: usize, end: usize) {
        if begin == 0 {
            while self.chunks.front().is_some_and(|chunk| chunk.form.is_empty()) {
                self.chunks.pop_front();
            }
        }
        if end - begin > 2 || self.chunks.iter().take(end).skip(begin).any(|c| c.form.is_empty()) {
            self.chunks.retain(|chunk| !chunk.form.is_empty());
        }
    }
}

fn split(lsn: Lsn) -> (u64, u16) {
    (lsn.0 >> CHUNK_BITS, (lsn.0 & (CHUNK_SPAN - 1)) as u16)
}

fn join(key: u64, offset: u16) -> Lsn {
    Lsn((key << CHUNK_BITS) + u64::from(offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use std::collections::BTreeSet;

    fn xorshift(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// A queue whose cursor has passed its mark asks for such a range, and waited for ever for the
    /// next mark when the answer was a huge number.
    #[test]
    fn an_inverted_range_holds_nothing() {
        let mut set = LsnSet::default();
        for lsn in [3, 5, 9] {
            set.push(Lsn(lsn));
        }
        assert_eq!(set.count_range(Lsn(8), Lsn(2)), 0);
        assert_eq!(set.count_range(Lsn(3), Lsn(9)), 3);
    }

    /// The set must behave as the standard library's, whatever is done to it.
    #[test]
    fn behaves_as_a_btree_set() {
        for seed in 1..=60u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (mut set, mut model) = (LsnSet::default(), BTreeSet::new());
            let mut top = 0;
            for _ in 0..2_000 {
                let gap = if seed % 3 == 0 { 1 } else { 1 + xorshift(&mut random) % 40 };
                match xorshift(&mut random) % 12 {
                    10..=11 => {
                        let at = 1 + xorshift(&mut random) % (top + 1);
                        assert_eq!(set.insert(Lsn(at)), model.insert(at), "seed {seed}");
                        top = top.max(at);
                    }
                    0..=6 => {
                        top += gap;
                        assert_eq!(set.push(Lsn(top)), model.insert(top), "seed {seed}");
                    }
                    7 => {
                        let from = xorshift(&mut random) % (top + 2);
                        let to = from + xorshift(&mut random) % 50;
                        let count = model.range(from..=to).count() as u64;
                        assert_eq!(set.count_range(Lsn(from), Lsn(to)), count, "seed {seed}");
                        assert_eq!(set.remove_range(Lsn(from), Lsn(to)), count, "seed {seed}");
                        model.retain(|lsn| !(from..=to).contains(lsn));
                    }
                    _ => {
                        let at = xorshift(&mut random) % (top + 2);
                        let next = model.range(at + 1..).next().map(|l| Lsn(*l));
                        assert_eq!(set.next_after(Lsn(at)), next, "seed {seed}");
                        assert_eq!(set.contains(Lsn(at)), model.contains(&at), "seed {seed}");
                    }
                }
                assert_eq!(set.len(), model.len() as u64, "seed {seed}");
                assert_eq!(set.first().map(|l| l.0), model.first().copied(), "seed {seed}");
                assert_eq!(set.last().map(|l| l.0), model.last().copied(), "seed {seed}");
            }
            assert!(set.iter().map(|l| l.0).eq(model.iter().copied()), "seed {seed}");
            let mut out = BytesMut::new();
            set.encode(&mut Writer(&mut out));
            let back = LsnSet::decode(&mut Reader(&out)).unwrap();
            assert!(back.iter().eq(set.iter()) && back.len() == set.len(), "seed {seed}");
        }
    }

    #[test]
    fn a_backlog_without_gaps_costs_next_to_nothing() {
        let mut set = LsnSet::default();
        (1..=1_000_000).for_each(|lsn| {
            set.push(Lsn(lsn));
        });
        assert!(set.chunks.len() * size_of::<Chunk>() < 16_000);
        let mut out = BytesMut::new();
        set.encode(&mut Writer(&mut out));
        assert!(out.len() < 10);
    }
}
