//! A queue's consumers, and whose turn it is.

use super::{ConsumerKey, Queue};

impl Queue {
    pub(crate) fn add_consumer(&mut self, priority: i32, key: ConsumerKey) {
        let at = self.memory.consumers.partition_point(|(p, _)| *p >= priority);
        self.memory.consumers.insert(at, (priority, key));
    }

    /// True if it was there.
    pub(crate) fn remove_consumer(&mut self, key: ConsumerKey) -> bool {
        let before = self.memory.consumers.len();
        self.memory.consumers.retain(|(_, k)| *k != key);
        self.memory.filters.remove(key);
        self.memory.browsers.retain(|browser| browser.key != key);
        if self.memory.exclusive_consumer == Some(key) {
            self.memory.exclusive_consumer = None;
        }
        if self.memory.active_consumer == Some(key) {
            self.memory.active_consumer = None;
        }
        self.memory.consumers.len() < before
    }

    /// The next consumer in turn that `can_take` one, highest priority first.
    pub(crate) fn choose(
        &self,
        mut can_take: impl FnMut(ConsumerKey) -> bool,
    ) -> Option<ConsumerKey> {
        if self.rules.single_active_consumer {
            return self.memory.active_consumer.filter(|key| can_take(*key));
        }
        let mut rest = &self.memory.consumers[..];
        while let Some((priority, _)) = rest.first() {
            let equals = rest.iter().take_while(|(p, _)| p == priority).count();
            let (group, lower) = rest.split_at(equals);
            let found = (0..equals).map(|i| group[(self.memory.turn + i) % equals].1);
            if let Some(key) = found.into_iter().find(|key| can_take(*key)) {
                return Some(key);
            }
            rest = lower;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::queue;
    use understudy_model::{ConnectionId, ConsumerNumber};

    #[test]
    fn consumers_of_one_priority_take_turns() {
        let mut queue = queue(&[]);
        let key = |n| (ConnectionId(1), ConsumerNumber(n));
        queue.add_consumer(0, key(1));
        queue.add_consumer(5, key(2));
        queue.add_consumer(5, key(3));
        let mut order = Vec::new();
        for _ in 0..4 {
            order.push(queue.choose(|_| true).unwrap().1.0);
            queue.memory.turn += 1;
        }
        assert_eq!(order, [2, 3, 2, 3]);
        assert_eq!(queue.choose(|k| k == key(1)), Some(key(1)));
    }
}
