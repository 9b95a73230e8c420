//! What was read from the store for deliveries. A part of the node, sans-io.

use super::{Blocked, Node, Outputs};
use bytes::Bytes;
use understudy_broker::ReadAhead;
use understudy_model::{Damage, Lsn, Place, QueueId};

impl Node {
    pub(super) fn read_done(
        &mut self,
        now_ms: u64,
        queue: QueueId,
        asked: Vec<Lsn>,
        records: Vec<(Lsn, Bytes)>,
        out: &mut Outputs,
    ) {
        // A reader may stop early for size, but never before the first message; a first one that
        // is still wanted and not in the log means that the log has lost it.
        if let Some(&first) = asked.first()
            && records.first().is_none_or(|(lsn, _)| *lsn != first)
            && self.broker.is_unsettled(queue, first)
        {
            let damage = Damage { place: Place::Log, lsn: first };
            let what = format!("message {first} is not there");
            let blocked = Blocked::Ahead(ReadAhead { queue, lsns: asked });
            return self.on_damage(now_ms, (damage, first), what, Some(blocked), out);
        }
        self.cache.add_read(records);
        self.broker.read_done(queue);
    }
}
