//! What lies between the nodes.

use super::{Link, Side, World};
use bytes::{Bytes, BytesMut};
use understudy::node::Input;
use understudy_replication::{Input as BackendInput, LinkId};

impl World {
    /// Frames between the nodes are lost from now on, in both directions.
    pub fn cut_link(&mut self) {
        self.note("the link is cut");
        self.cut = true;
        self.links.values_mut().for_each(|link| link.dead = true);
    }

    /// As above, and new connections are refused though both live.
    pub fn reject_link(&mut self) {
        self.cut_link();
        self.note("connections are refused");
        self.refuses = true;
    }

    /// Nothing reaches `side` from the other node, while what it sends arrives.
    pub fn cut_towards(&mut self, side: Side) {
        self.note(format!("nothing reaches {side:?} any more"));
        self.deaf[side as usize] = true;
    }

    pub fn slow_link(&mut self, slow_ms: u64) {
        self.note(format!("the link takes {slow_ms} ms more"));
        self.slow_ms = slow_ms;
    }

    pub fn heal_link(&mut self) {
        self.note("the link is healed");
        self.cut = false;
        self.refuses = false;
        self.deaf = [false; 2];
        self.slow_ms = 0;
        // A stream repeats what was lost, in order.
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for id in links {
            for from in Side::BOTH {
                let held = self
                    .links
                    .get_mut(&id)
                    .map(|link| std::mem::take(&mut link.held[from as usize]));
                held.into_iter().flatten().for_each(|frame| self.send_frame(from, id, &[frame]));
            }
        }
        let dead: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| link.dead).map(|(id, _)| *id).collect();
        for id in dead {
            for side in Side::BOTH {
                self.lose_link(side, id);
            }
            self.links.remove(&id);
        }
    }

    fn lose_link(&mut self, side: Side, link: LinkId) {
        if self.links.get(&link).is_some_and(|l| l.open[side as usize]) {
            let delay = self.latency();
            self.tell_node(side, delay, Input::Backend(BackendInput::LinkLost { link }));
        }
    }

    /// `side` has closed the link; the other learns of it unless the cable is cut.
    pub(super) fn hang_up(&mut self, side: Side, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.open[side as usize] = false;
        let other = side.other();
        // It learns of that when the link is healed.
        link.dead |= self.deaf[other as usize];
        if !link.dead {
            let at = link.arrives_at[side as usize].saturating_sub(self.now_ms);
            if link.open[other as usize] {
                // Sometimes late, behind what comes on the next link.
                let late_ms = if self.roll(8) == 0 { self.roll(500) } else { 0 };
                let delay = at + 1 + late_ms;
                self.tell_node(other, delay, Input::Backend(BackendInput::LinkLost { link: id }));
            }
            self.links.remove(&id);
        }
    }

    pub(super) fn send_frame(&mut self, from: Side, id: LinkId, pieces: &[Bytes]) {
        let delay = self.latency() + self.slow_ms;
        let now_ms = self.now_ms;
        let Some(link) = self.links.get_mut(&id) else { return };
        let other = from.other();
        if link.dead || !link.open[from as usize] || !link.open[other as usize] {
            return;
        }
        if self.deaf[other as usize] {
            link.held[from as usize].push(pieces.concat().into());
            return;
        }
        let at_ms = (now_ms + delay).max(link.arrives_at[from as usize]);
        link.arrives_at[from as usize] = at_ms;
        let mut frame = BytesMut::new();
        pieces.iter().for_each(|piece| frame.extend_from_slice(piece));
        let received = BackendInput::Received { link: id, frame: frame.freeze() };
        self.tell_node(other, at_ms - now_ms, Input::Backend(received));
    }

    pub(super) fn dial(&mut self, side: Side) {
        let other = side.other();
        let failed = |refused| Input::Backend(BackendInput::DialFailed { refused });
        // A connection needs both ways.
        if self.cut || self.deaf != [false; 2] {
            let (delay_ms, refused) = if self.refuses { (1, true) } else { (500, false) };
            return self.tell_node(side, delay_ms, failed(refused));
        }
        if self.machines[other as usize].node.is_none() {
            return self.tell_node(side, 1, failed(true));
        }
        let link = LinkId(self.next_link);
        self.next_link += 1;
        let delay = self.latency();
        let at_ms = self.now_ms + delay;
        let held = Default::default();
        let state = Link { dead: false, held, arrives_at: [at_ms; 2], open: [true; 2] };
        self.links.insert(link, state);
        self.tell_node(side, delay, Input::Backend(BackendInput::Linked { link, dialed: true }));
        self.tell_node(other, delay, Input::Backend(BackendInput::Linked { link, dialed: false }));
    }
}
