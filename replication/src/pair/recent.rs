//! Groups that were sealed lately: what the slave gets without a read from the log.

use std::collections::VecDeque;
use understudy_model::{Group, Lsn};

/// A gapless run that ends at the last sealed group.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Recent {
    groups: VecDeque<Group>,
    bytes: usize,
}

impl Recent {
    pub(crate) fn push(&mut self, group: Group) {
        self.bytes += group.bytes().len();
        self.groups.push_back(group);
    }

    /// The group that begins behind `lsn`.
    pub(crate) fn following(&self, lsn: Lsn) -> Option<&Group> {
        let at = self.groups.partition_point(|group| group.first() <= lsn);
        self.groups.get(at).filter(|group| group.first() == lsn.next())
    }

    /// Forgets from the front what the log can give, unless the slave still needs it and it is
    /// little. What is not durable cannot be read back and stays.
    pub(crate) fn trim(&mut self, durable: Lsn, sent: Lsn, bytes_max: usize) {
        while let Some(front) = self.groups.front() {
            let wanted = front.last() > sent && self.bytes <= bytes_max;
            if front.last() > durable || wanted {
                return;
            }
            self.bytes -= front.bytes().len();
            self.groups.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_model::OpenGroup;

    #[test]
    fn only_what_the_log_can_give_is_forgotten() {
        let mut recent = Recent::default();
        let mut open = OpenGroup::new(Lsn(1));
        for _ in 0..4 {
            open.push(|out| out.extend_from_slice(b"one"));
            open.push(|out| out.extend_from_slice(b"two"));
            recent.push(open.seal(1, 0, 0));
        }
        recent.trim(Lsn(4), Lsn(2), usize::MAX);
        assert!(recent.following(Lsn(0)).is_none());
        assert_eq!(recent.following(Lsn(2)).map(Group::last), Some(Lsn(4)));
        assert!(recent.following(Lsn(3)).is_none());
        recent.trim(Lsn(4), Lsn(2), 1);
        assert!(recent.following(Lsn(2)).is_none());
        assert_eq!(recent.following(Lsn(4)).map(Group::last), Some(Lsn(6)));
        assert!(recent.following(Lsn(8)).is_none());
    }
}
