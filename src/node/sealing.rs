//! When the open group becomes one that is written and sent. A part of the node, sans-io.

use super::{LogJob, Node, Outputs};
use understudy_replication::Input as BackendInput;

/// Settles wait this long for a group to ride in: nobody waits for them, and a sync of their own
/// would only delay the next publish.
pub(super) const LAZY_SEAL_MS: u64 = 5;

impl Node {
    /// A group is sealed when the writer is free, or when it is full. Nothing but settles: when
    /// they have waited long enough. Publishes of who does not wait for answers: not at once.
    pub(super) fn seal_if_due(&mut self, now_ms: u64, out: &mut Outputs) {
        let full = self.inflight.open.bytes_len() >= self.options.group_bytes_max;
        if !full && !self.inflight.writer_is_free() {
            return;
        }
        let awaited = self.broker.mark_awaited() || self.broker.returns_due();
        if self.inflight.open.is_empty() && !awaited {
            if !self.broker.settles_due() {
                self.lazy_since_ms = None;
                return;
            }
            let since = *self.lazy_since_ms.get_or_insert(now_ms);
            if now_ms < since + LAZY_SEAL_MS {
                return;
            }
        }
        if !full && self.commit_delay.holds(now_ms, self.inflight.open.next_lsn()) {
            return;
        }
        self.seal(now_ms, out);
    }

    pub(super) fn seal(&mut self, now_ms: u64, out: &mut Outputs) {
        let Some(epoch) = self.leading else { return };
        self.commit_delay.sealed(now_ms, self.inflight.open.next_lsn());
        self.broker.flush_settles(&mut self.inflight.open);
        self.broker.flush_returns(&mut self.inflight.open);
        self.broker.flush_marks(&mut self.inflight.open);
        self.lazy_since_ms = None;
        if self.inflight.open.is_empty() {
            return;
        }
        let group = self.inflight.seal(epoch.number, now_ms);
        out.log.push(LogJob::Append(group.clone()));
        self.backend_input(now_ms, BackendInput::Sealed(group), out);
    }
}

#[cfg(test)]
mod tests {
    use crate::node::alone::{Alone, publish};
    use crate::node::{AlarmPolicy, Input, LogJob};
    use understudy_model::{Effect, Request};

    const INTERVAL_MS: u64 = 2;

    fn confirmed(through: u64) -> Vec<Effect> {
        vec![Effect::Confirm { channel: 3, through }]
    }

    #[test]
    fn a_publisher_who_waits_for_each_confirm_is_never_held_up() {
        let mut node = Alone::new(AlarmPolicy::Block, INTERVAL_MS);
        for number in 1..10 {
            assert_eq!(node.ask([Request::Publish(publish(number))]), confirmed(number));
        }
    }

    #[test]
    fn who_sends_on_without_waiting_gets_one_commit_an_interval() {
        let mut node = Alone::new(AlarmPolicy::Block, INTERVAL_MS);
        node.held = Some(Vec::new());
        node.ask([Request::Publish(publish(1))]);
        node.ask([Request::Publish(publish(2))]);
        let Some([LogJob::Append(first)]) = node.held.as_deref() else { panic!("one group") };
        let through = first.last();
        node.held = None;
        assert_eq!(node.turn(Input::Durable { through }), confirmed(1));
        assert_eq!(node.node.deadline_ms(), Some(INTERVAL_MS));
        node.now_ms = 1;
        assert_eq!(node.ask([Request::Publish(publish(3))]), []);
        node.now_ms = INTERVAL_MS;
        assert_eq!(node.turn(Input::Tick), confirmed(3), "both, with one commit");
    }
}
