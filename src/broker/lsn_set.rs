//! An ordered set of LSNs: which messages of a queue are unsettled.
//!
//! A queue's messages arrive in ascending order and leave mostly from the front, so the set is a
//! deque of chunks of 4,096 consecutive LSNs, each held in the smallest of three forms. A backlog
//! without gaps costs a few bytes per chunk, one with gaps a bit or two per LSN.

use std::collections::VecDeque;
use understudy_model::{Digest, Lsn, Malformed, Reader, Writer};

const CHUNK_BITS: u32 = 12;
const CHUNK_SPAN: u64 = 1 << CHUNK_BITS;
/// Above so many members a bitmap (512 bytes) is smaller than a list of 16-bit offsets.
const LIST_LEN_MAX: usize = 256;
const WORDS: usize = (CHUNK_SPAN / 64) as usize;

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

#[derive(Clone, Debug)]
enum Form {
    /// All from the first to the second, both included.
    Run(u16, u16),
    /// Ascending.
    List(Vec<u16>),
    Bits(Box<[u64; WORDS]>),
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
        let (key, offset) = split(Lsn(lsn.0.checked_add(1)?));
        let mut at = match self.find(key) {
            Ok(at) => {
                if let Some(found) = self.chunks[at].form.at_or_after(offset) {
                    return Some(join(key, found));
                }
                at + 1
            }
            Err(at) => at,
        };
        let chunk = self.chunks.get(at);
        at += 1;
        debug_assert!(at > 0);
        chunk.map(|chunk| join(chunk.key, chunk.form.first()))
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
        let mut at = from.prev();
        let mut zero = from == Lsn::ZERO && self.contains(Lsn::ZERO);
        std::iter::from_fn(move || {
            if std::mem::take(&mut zero) {
                return Some(Lsn::ZERO);
            }
            at = self.next_after(at)?;
            Some(at)
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

impl Form {
    fn is_empty(&self) -> bool {
        match self {
            Self::Run(from, to) => from > to,
            Self::List(list) => list.is_empty(),
            Self::Bits(words) => words.iter().all(|word| *word == 0),
        }
    }

    fn first(&self) -> u16 {
        match self {
            Self::Run(from, _) => *from,
            Self::List(list) => list.first().copied().unwrap_or(0),
            Self::Bits(words) => next_bit(words, 0).unwrap_or(0),
        }
    }

    fn last(&self) -> u16 {
        match self {
            Self::Run(_, to) => *to,
            Self::List(list) => list.last().copied().unwrap_or(0),
            Self::Bits(words) => {
                let at = words.iter().rposition(|word| *word != 0).unwrap_or(0);
                (at as u16) * 64 + (63 - words[at].leading_zeros().min(63)) as u16
            }
        }
    }

    fn contains(&self, offset: u16) -> bool {
        match self {
            Self::Run(from, to) => (*from..=*to).contains(&offset),
            Self::List(list) => list.binary_search(&offset).is_ok(),
            Self::Bits(words) => words[offset as usize / 64] >> (offset % 64) & 1 == 1,
        }
    }

    fn at_or_after(&self, offset: u16) -> Option<u16> {
        match self {
            Self::Run(from, to) => (offset <= *to).then(|| offset.max(*from)),
            Self::List(list) => list.get(list.partition_point(|o| *o < offset)).copied(),
            Self::Bits(words) => next_bit(words, offset),
        }
    }

    /// Calls with the first and the last of consecutive members, in order.
    fn each_run(&self, mut each: impl FnMut(u16, u16)) {
        match self {
            Self::Run(from, to) => each(*from, *to),
            Self::List(list) => {
                for run in list.chunk_by(|one, next| one + 1 == *next) {
                    each(run[0], run[run.len() - 1]);
                }
            }
            Self::Bits(words) => {
                let mut run = None;
                for offset in 0..CHUNK_SPAN as u16 {
                    let is_member = words[offset as usize / 64] >> (offset % 64) & 1 == 1;
                    run = match (run, is_member) {
                        (None, true) => Some(offset),
                        (Some(from), false) => {
                            each(from, offset - 1);
                            None
                        }
                        (run, _) => run,
                    };
                }
                if let Some(from) = run {
                    each(from, (CHUNK_SPAN - 1) as u16);
                }
            }
        }
    }

    fn words(&self) -> [u64; WORDS] {
        match self {
            Self::Run(from, to) => std::array::from_fn(|at| {
                let base = at as u16 * 64;
                let apart = *to < base || *from > base + 63;
                if apart { 0 } else { word_mask(at, *from, *to) }
            }),
            Self::List(list) => {
                let mut words = [0; WORDS];
                list.iter().for_each(|offset| words[*offset as usize / 64] |= 1 << (offset % 64));
                words
            }
            Self::Bits(words) => **words,
        }
    }

    fn push(&mut self, offset: u16) {
        match self {
            Self::Run(_, to) if *to + 1 == offset => *to = offset,
            Self::Run(from, to) if (*to - *from) < 64 => {
                *self = Self::List((*from..=*to).chain([offset]).collect());
            }
            Self::List(list) if list.len() < LIST_LEN_MAX => list.push(offset),
            Self::Bits(words) => words[offset as usize / 64] |= 1 << (offset % 64),
            Self::Run(..) | Self::List(_) => {
                self.become_bits();
                self.push(offset);
            }
        }
    }

    /// A member that is not there yet.
    fn insert(&mut self, offset: u16) {
        match self {
            Self::Run(from, _) if offset + 1 == *from => *from = offset,
            Self::Run(_, to) if *to + 1 == offset => *to = offset,
            Self::Run(from, to) if *to - *from < 64 => {
                *self = Self::List((*from..=*to).collect());
                self.insert(offset);
            }
            Self::List(list) if list.len() < LIST_LEN_MAX => {
                list.insert(list.partition_point(|o| *o < offset), offset);
            }
            Self::Bits(words) => words[offset as usize / 64] |= 1 << (offset % 64),
            Self::Run(..) | Self::List(_) => {
                self.become_bits();
                self.insert(offset);
            }
        }
    }

    fn remove_range(&mut self, low: u16, high: u16) -> u64 {
        match self {
            Self::Run(from, to) => {
                let (low, high) = (low.max(*from), high.min(*to));
                if low > high {
                    return 0;
                }
                let removed = u64::from(high - low) + 1;
                if low == *from && high == *to {
                    *self = Self::Run(1, 0);
                } else if low == *from {
                    *from = high + 1;
                } else if high == *to {
                    *to = low - 1;
                } else {
                    self.become_bits();
                    return self.remove_range(low, high);
                }
                removed
            }
            Self::List(list) => {
                let begin = list.partition_point(|o| *o < low);
                let end = list.partition_point(|o| *o <= high);
                list.drain(begin..end);
                (end - begin) as u64
            }
            Self::Bits(words) => {
                let mut removed = 0;
                for at in low as usize / 64..=high as usize / 64 {
                    let mask = word_mask(at, low, high);
                    removed += u64::from((words[at] & mask).count_ones());
                    words[at] &= !mask;
                }
                removed
            }
        }
    }

    fn count_range(&self, low: u16, high: u16) -> u64 {
        match self {
            Self::Run(from, to) => {
                (u64::from(high.min(*to)) + 1).saturating_sub(low.max(*from).into())
            }
            Self::List(list) => {
                let begin = list.partition_point(|o| *o < low);
                (list.partition_point(|o| *o <= high) - begin) as u64
            }
            Self::Bits(words) => (low as usize / 64..=high as usize / 64)
                .map(|at| u64::from((words[at] & word_mask(at, low, high)).count_ones()))
                .sum(),
        }
    }

    fn become_bits(&mut self) {
        let mut words = Box::new([0u64; WORDS]);
        let mut set = |offset: u16| words[offset as usize / 64] |= 1 << (offset % 64);
        match self {
            Self::Run(from, to) => (*from..=*to).for_each(&mut set),
            Self::List(list) => list.iter().copied().for_each(&mut set),
            Self::Bits(_) => return,
        }
        *self = Self::Bits(words);
    }
}

/// The bits of word `at` that lie in `low..=high`.
fn word_mask(at: usize, low: u16, high: u16) -> u64 {
    let base = at as u16 * 64;
    let from = if low > base { u64::MAX << (low - base) } else { u64::MAX };
    let to = if high < base + 63 { u64::MAX >> (63 - (high - base)) } else { u64::MAX };
    from & to
}

fn next_bit(words: &[u64; WORDS], from: u16) -> Option<u16> {
    let mut at = from as usize / 64;
    let mut word = words.get(at)? & (u64::MAX << (from % 64));
    loop {
        if word != 0 {
            return Some(at as u16 * 64 + word.trailing_zeros() as u16);
        }
        at += 1;
        word = *words.get(at)?;
    }
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
