//! How many live messages each stretch of the log still holds, so that dead stretches can be
//! given back. A message in several queues counts once for each.

use std::collections::VecDeque;
use understudy_model::{Lsn, Malformed, Reader, Writer};

/// How many live messages of a copy make a segment of their own.
const COLD_SEGMENT_MESSAGES_MAX: usize = 16_384;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub first: Lsn,
    /// A group's end.
    pub last: Lsn,
    pub bytes: u64,
    /// (queue, message) pairs that are not settled.
    pub live: u64,
    /// Its live records lie packed in the cold store; its log pieces are gone.
    pub cold: bool,
}

/// Segments in ascending order. The last one is open.
#[derive(Default)]
pub(crate) struct Segments(VecDeque<Segment>);

impl Segments {
    /// The last segment is closed at the first group's end after it has grown to `bytes_min`.
    pub(crate) fn add_group(&mut self, first: Lsn, last: Lsn, bytes: u64, bytes_min: u64) {
        match self.0.back_mut() {
            Some(open) if last <= open.last => {}
            Some(open) if open.bytes < bytes_min && !open.cold => {
                open.last = last;
                open.bytes += bytes;
            }
            _ => self.0.push_back(Segment { first, last, bytes, live: 0, cold: false }),
        }
    }

    pub(crate) fn enqueued(&mut self, lsn: Lsn, queues: u64) {
        // Nearly always the newest segment.
        if let Some(segment) = self.0.back_mut()
            && segment.first <= lsn
        {
            segment.live += queues;
        } else if let Some(segment) = self.find(lsn) {
            segment.live += queues;
        }
    }

    /// `count(from, to)` messages of a settled range lie in the segment between these.
    pub(crate) fn settled(
        &mut self,
        from: Lsn,
        to: Lsn,
        removed: u64,
        mut count: impl FnMut(Lsn, Lsn) -> u64,
    ) {
        let begin = self.0.partition_point(|segment| segment.last < from);
        let Some(first) = self.0.get_mut(begin) else { return };
        if to <= first.last {
            first.live = first.live.saturating_sub(removed);
            return;
        }
        for segment in self.0.range_mut(begin..).take_while(|segment| segment.first <= to) {
            let gone = count(from.max(segment.first), to.min(segment.last));
            segment.live = segment.live.saturating_sub(gone);
        }
    }

    /// True if the range lies in one segment, so that no counting is needed.
    pub(crate) fn in_one(&self, from: Lsn, to: Lsn) -> bool {
        let at = self.0.partition_point(|segment| segment.last < from);
        self.0.get(at).is_none_or(|segment| to <= segment.last)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.0.iter()
    }

    pub(crate) fn remove(&mut self, first: Lsn) {
        self.0.retain(|segment| segment.first != first);
    }

    pub(crate) fn set_cold(&mut self, first: Lsn, bytes: u64) {
        if let Some(segment) = self.0.iter_mut().find(|segment| segment.first == first) {
            segment.cold = true;
            segment.bytes = bytes;
        }
    }

    pub(crate) fn clear_live(&mut self) {
        self.0.iter_mut().for_each(|segment| segment.live = 0);
    }

    pub(crate) fn add_live(&mut self, mut count: impl FnMut(Lsn, Lsn) -> u64) {
        for segment in &mut self.0 {
            segment.live += count(segment.first, segment.last);
        }
    }

    /// As after the installation of a snapshot: everything up to `last` lies in the cold store,
    /// cut so that the space of a consumed part is given back before the rest is consumed.
    pub(crate) fn reset(&mut self, live: &[Lsn], last: Lsn) {
        self.0.clear();
        let mut first = Lsn(1);
        let cuts = live.chunks(COLD_SEGMENT_MESSAGES_MAX).map(|part| part[part.len() - 1]);
        let inner = cuts.clone().take(cuts.len().saturating_sub(1));
        for end in inner.chain((last > Lsn::ZERO).then_some(last)) {
            self.0.push_back(Segment { first, last: end, bytes: 0, live: 0, cold: true });
            first = end.next();
        }
    }

    /// Stretches in front of and between the segments. Nothing there is live, but a crash may have
    /// come before their deletion was complete.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = (Lsn, Lsn)> {
        let mut next = Lsn(1);
        self.0.iter().filter_map(move |segment| {
            let gap = (next, Lsn(segment.first.0 - 1));
            next = segment.last.next();
            (gap.0 <= gap.1).then_some(gap)
        })
    }

    fn find(&mut self, lsn: Lsn) -> Option<&mut Segment> {
        let at = self.0.partition_point(|segment| segment.last < lsn);
        self.0.get_mut(at).filter(|segment| segment.first <= lsn)
    }

    pub(crate) fn encode(&self, w: &mut Writer<'_>) {
        w.varint(self.0.len() as u64);
        for segment in &self.0 {
            w.varint(segment.first.0);
            w.varint(segment.last.0);
            w.varint(segment.bytes);
            w.bool(segment.cold);
        }
    }

    /// Live counts are not saved: they follow from the queues.
    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut segments = VecDeque::new();
        for _ in 0..r.varint()? {
            segments.push_back(Segment {
                first: Lsn(r.varint()?),
                last: Lsn(r.varint()?),
                bytes: r.varint()?,
                live: 0,
                cold: r.bool()?,
            });
        }
        Ok(Self(segments))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MIN: u64 = 1_000;

    fn ranges(segments: &Segments) -> Vec<(u64, u64)> {
        segments.iter().map(|segment| (segment.first.0, segment.last.0)).collect()
    }

    #[test]
    fn a_copy_is_cut_into_segments_without_gaps() {
        let mut segments = Segments::default();
        let live: Vec<Lsn> = (0..40_000).map(|n| Lsn(10 + 2 * n)).collect();
        segments.reset(&live, Lsn(100_000));
        assert_eq!(ranges(&segments), [(1, 32_776), (32_777, 65_544), (65_545, 100_000)]);
        assert_eq!(segments.gaps().count(), 0);
        segments.reset(&[], Lsn(7));
        assert_eq!(ranges(&segments), [(1, 7)]);
        segments.reset(&[], Lsn::ZERO);
        assert_eq!(ranges(&segments), []);
    }

    #[test]
    fn the_log_behind_a_copy_begins_a_segment_of_its_own() {
        let mut segments = Segments::default();
        segments.reset(&[Lsn(3)], Lsn(7));
        segments.add_group(Lsn(8), Lsn(9), 10, BYTES_MIN);
        segments.add_group(Lsn(10), Lsn(10), 10, BYTES_MIN);
        assert_eq!(ranges(&segments), [(1, 7), (8, 10)]);
        assert_eq!(segments.iter().map(|segment| segment.cold).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn gaps_are_what_was_removed() {
        let mut segments = Segments::default();
        for n in 0..5 {
            segments.add_group(Lsn(n * 10 + 1), Lsn(n * 10 + 10), BYTES_MIN, BYTES_MIN);
        }
        assert_eq!(segments.gaps().count(), 0);
        [1, 11, 31].into_iter().for_each(|first| segments.remove(Lsn(first)));
        assert_eq!(segments.gaps().collect::<Vec<_>>(), [(Lsn(1), Lsn(20)), (Lsn(31), Lsn(40))]);
    }
}
