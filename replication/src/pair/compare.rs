//! The nodes' states are compared at the same LSN. A digest goes out in front of anything that tells
//! the slave to apply more, so the slave has not passed its LSN when it comes.

use crate::pair::machine::Pair;
use crate::pair::message::Message;
use crate::pair::view::put_epoch;
use crate::{LinkId, Output, StateDigest};
use understudy_model::{Epoch, Lsn, Malformed, Reader, Writer};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) epoch: Epoch,
    pub(crate) digest: StateDigest,
}

impl Pair {
    pub(crate) fn compare(&self, digest: StateDigest, out: &mut Vec<Output>) {
        if let Some((link, epoch)) = self.peer_with_the_same_log() {
            self.core.send(link, &Message::Digest(Comparison { epoch, digest }), out);
        }
    }

    pub(crate) fn compared(&self, link: LinkId, comparison: Comparison, out: &mut Vec<Output>) {
        if self.peer_with_the_same_log() == Some((link, comparison.epoch)) {
            out.push(Output::Digest(comparison.digest));
        }
    }
}

impl Comparison {
    pub(crate) fn encode(&self, kind: u8, w: &mut Writer<'_>) {
        w.u8(kind);
        put_epoch(w, self.epoch);
        w.varint(self.digest.at.0);
        w.bytes(&self.digest.part);
        w.u128(self.digest.hash);
        w.bool(self.digest.differs.is_some());
        w.bool(self.digest.differs == Some(true));
    }

    pub(crate) fn decode(epoch: Epoch, r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let at = Lsn(r.varint()?);
        let (part, hash) = (r.owned_bytes()?, r.u128()?);
        let (answered, differs) = (r.bool()?, r.bool()?);
        let differs = answered.then_some(differs);
        Ok(Self { epoch, digest: StateDigest { at, part, hash, differs } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::upgrade::Protocols;
    use bytes::Bytes;

    #[test]
    fn a_comparison_reads_back() {
        let epoch = Epoch { number: 3, generation: 1 };
        for differs in [None, Some(false), Some(true)] {
            let part = Bytes::from_static(b"part");
            let digest = StateDigest { at: Lsn(300), part, hash: 77, differs };
            let message = Message::Digest(Comparison { epoch, digest });
            let frame = message.encode();
            assert_eq!(Message::decode(&frame, Protocols::OWN), Ok(message));
            for length in 0..frame.len() {
                assert!(Message::decode(&frame.slice(..length), Protocols::OWN).is_err());
            }
        }
    }
}
