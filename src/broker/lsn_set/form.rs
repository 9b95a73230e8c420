//! The members of one chunk of an [`super::LsnSet`], as offsets in it, in the smallest of three forms.

use super::CHUNK_SPAN;

/// Above so many members a bitmap (512 bytes) is smaller than a list of 16-bit offsets.
const LIST_LEN_MAX: usize = 256;
/// Of a bitmap, 64 bits each.
pub(super) const WORDS: usize = (CHUNK_SPAN / 64) as usize;

#[derive(Clone, Debug)]
pub(super) enum Form {
    /// All from the first to the second, both included.
    Run(u16, u16),
    /// Ascending.
    List(Vec<u16>),
    Bits(Box<[u64; WORDS]>),
}

impl Form {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Run(from, to) => from > to,
            Self::List(list) => list.is_empty(),
            Self::Bits(words) => words.iter().all(|word| *word == 0),
        }
    }

    pub(super) fn first(&self) -> u16 {
        match self {
            Self::Run(from, _) => *from,
            Self::List(list) => list.first().copied().unwrap_or(0),
            Self::Bits(words) => next_bit(words, 0).unwrap_or(0),
        }
    }

    pub(super) fn last(&self) -> u16 {
        match self {
            Self::Run(_, to) => *to,
            Self::List(list) => list.last().copied().unwrap_or(0),
            Self::Bits(words) => {
                let at = words.iter().rposition(|word| *word != 0).unwrap_or(0);
                (at as u16) * 64 + (63 - words[at].leading_zeros().min(63)) as u16
            }
        }
    }

    pub(super) fn contains(&self, offset: u16) -> bool {
        match self {
            Self::Run(from, to) => (*from..=*to).contains(&offset),
            Self::List(list) => list.binary_search(&offset).is_ok(),
            Self::Bits(words) => words[offset as usize / 64] >> (offset % 64) & 1 == 1,
        }
    }

    pub(super) fn at_or_after(&self, offset: u16) -> Option<u16> {
        match self {
            Self::Run(from, to) => (offset <= *to).then(|| offset.max(*from)),
            Self::List(list) => list.get(list.partition_point(|o| *o < offset)).copied(),
            Self::Bits(words) => next_bit(words, offset),
        }
    }

    /// Calls with the first and the last of consecutive members, in order.
    pub(super) fn each_run(&self, mut each: impl FnMut(u16, u16)) {
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

    pub(super) fn words(&self) -> [u64; WORDS] {
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

    pub(super) fn push(&mut self, offset: u16) {
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
    pub(super) fn insert(&mut self, offset: u16) {
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

    pub(super) fn remove_range(&mut self, low: u16, high: u16) -> u64 {
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

    pub(super) fn count_range(&self, low: u16, high: u16) -> u64 {
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

    pub(super) fn become_bits(&mut self) {
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
