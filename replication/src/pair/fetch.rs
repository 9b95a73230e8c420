//! What one node's disk has lost is fetched from the other's, in either direction. Only between
//! nodes whose logs are known to be the same: each asks its session's peer, of the session's epoch.

use crate::pair::machine::Pair;
use crate::pair::message::Message;
use crate::pair::state::State;
use crate::pair::view::put_epoch;
use crate::{Found, LinkId, Output, Wanted};
use bytes::Bytes;
use understudy_model::{Epoch, Group, Lsn, Malformed, Reader, Writer};

/// Records that may be asked for at once.
const WANTED_MAX: u64 = 65_536;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) epoch: Epoch,
    pub(crate) id: u64,
    pub(crate) wanted: Wanted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) epoch: Epoch,
    pub(crate) id: u64,
    pub(crate) found: Found,
}

impl Pair {
    pub(crate) fn fetch(&mut self, id: u64, wanted: Wanted, out: &mut Vec<Output>) {
        let Some((link, epoch)) = self.peer_with_the_same_log() else {
            return out.push(Output::Fetched { id, found: Found::NoPeer });
        };
        self.core.fetching = Some((link, id));
        self.core.send(link, &Message::Fetch(Question { epoch, id, wanted }), out);
    }

    /// The answer will not come any more.
    pub(crate) fn end_fetch_of_lost_link(&mut self, out: &mut Vec<Output>) {
        if let Some((link, id)) = self.core.fetching
            && self.core.links.get(link).is_none()
        {
            self.core.fetching = None;
            out.push(Output::Fetched { id, found: Found::NoPeer });
        }
    }

    pub(crate) fn asked(&self, link: LinkId, question: Question, out: &mut Vec<Output>) {
        // Of an earlier session: who asked has been told that its link is lost.
        if self.session_epoch(link) == Some(question.epoch) {
            out.push(Output::ReadFetch { link, id: question.id, wanted: question.wanted });
        }
    }

    /// What was read for the peer, if it is still there.
    pub(crate) fn fetch_read(&self, link: LinkId, id: u64, found: Found, out: &mut Vec<Output>) {
        if let Some(epoch) = self.session_epoch(link) {
            self.core.send(link, &Message::Fetched(Answer { epoch, id, found }), out);
        }
    }

    pub(crate) fn answered(&mut self, link: LinkId, answer: Answer, out: &mut Vec<Output>) {
        if self.core.fetching == Some((link, answer.id)) {
            self.core.fetching = None;
            out.push(Output::Fetched { id: answer.id, found: answer.found });
        }
    }

    fn session_epoch(&self, link: LinkId) -> Option<Epoch> {
        match &self.state {
            State::Lead(lead) => lead.feed().filter(|feed| feed.link == link).map(|_| lead.epoch),
            State::Follow(follow) => (follow.link == link).then(|| follow.epoch()),
            State::Idle(_) | State::Stopped => None,
        }
    }

    pub(crate) fn peer_with_the_same_log(&self) -> Option<(LinkId, Epoch)> {
        match &self.state {
            State::Lead(lead) => {
                let feed = lead.feed().filter(|feed| feed.has_same_log())?;
                Some((feed.link, lead.epoch))
            }
            State::Follow(follow) => follow.is_streaming().then(|| (follow.link, follow.epoch())),
            State::Idle(_) | State::Stopped => None,
        }
    }
}

const GROUP: u8 = 0;
const RECORDS: u8 = 1;
const NOTHING: u8 = 2;

impl Question {
    pub(crate) fn encode(&self, kind: u8, w: &mut Writer<'_>) {
        w.u8(kind);
        put_epoch(w, self.epoch);
        w.varint(self.id);
        match &self.wanted {
            Wanted::Group { holding } => {
                w.u8(GROUP);
                w.varint(holding.0);
            }
            Wanted::Records(lsns) => {
                w.u8(RECORDS);
                w.varint(lsns.len() as u64);
                let mut before = 0;
                for lsn in lsns {
                    w.varint(lsn.0 - before);
                    before = lsn.0;
                }
            }
        }
    }

    pub(crate) fn decode(epoch: Epoch, r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = r.varint()?;
        let wanted = match r.u8()? {
            GROUP => Wanted::Group { holding: Lsn(r.varint()?) },
            RECORDS => {
                let count = r.varint()?;
                if count > WANTED_MAX {
                    return Err(Malformed("number of records"));
                }
                let mut lsns = Vec::new();
                let mut before = 0u64;
                for _ in 0..count {
                    before = before.checked_add(r.varint()?).ok_or(Malformed("LSN"))?;
                    lsns.push(Lsn(before));
                }
                Wanted::Records(lsns)
            }
            _ => return Err(Malformed("what is wanted")),
        };
        Ok(Self { epoch, id, wanted })
    }
}

impl Answer {
    pub(crate) fn encode(&self, kind: u8, w: &mut Writer<'_>) {
        w.u8(kind);
        put_epoch(w, self.epoch);
        w.varint(self.id);
        match &self.found {
            Found::Group(group) => {
                w.u8(GROUP);
                w.bytes(group.bytes());
            }
            Found::Records(records) => {
                w.u8(RECORDS);
                w.varint(records.len() as u64);
                for (lsn, record) in records {
                    w.varint(lsn.0);
                    w.bytes(record);
                }
            }
            Found::Nothing | Found::NoPeer | Found::Nobody => w.u8(NOTHING),
        }
    }

    /// A group whose hash does not fit is malformed: the link is dropped.
    pub(crate) fn decode(
        epoch: Epoch,
        frame: &Bytes,
        r: &mut Reader<'_>,
    ) -> Result<Self, Malformed> {
        let id = r.varint()?;
        let found = match r.u8()? {
            GROUP => {
                let group = Group::decode(frame.slice_ref(r.bytes()?));
                Found::Group(group.map_err(|_| Malformed("fetched group"))?)
            }
            RECORDS => {
                let mut records = Vec::new();
                for _ in 0..r.varint()? {
                    records.push((Lsn(r.varint()?), frame.slice_ref(r.bytes()?)));
                }
                Found::Records(records)
            }
            NOTHING => Found::Nothing,
            _ => return Err(Malformed("what was found")),
        };
        Ok(Self { epoch, id, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::upgrade::Protocols;
    use understudy_model::OpenGroup;

    #[test]
    fn questions_and_answers_read_back_and_no_part_of_one_is_taken_for_it() {
        let epoch = Epoch { number: 2, generation: 7 };
        let mut open = OpenGroup::new(Lsn(300));
        open.push(|out| out.extend_from_slice(b"one"));
        let group = open.seal(2, 1, 5);
        let mut messages: Vec<Message> =
            [Wanted::Group { holding: Lsn(9) }, Wanted::Records(vec![Lsn(3), Lsn(400)])]
                .map(|wanted| Message::Fetch(Question { epoch, id: 8, wanted }))
                .into();
        let records = vec![(Lsn(3), Bytes::from_static(b"x")), (Lsn(4), Bytes::new())];
        for found in [Found::Group(group), Found::Records(records), Found::Nothing] {
            messages.push(Message::Fetched(Answer { epoch, id: 8, found }));
        }
        for message in messages {
            let frame = message.encode();
            assert_eq!(Message::decode(&frame, Protocols::OWN), Ok(message));
            for length in 0..frame.len() {
                assert!(Message::decode(&frame.slice(..length), Protocols::OWN).is_err());
            }
        }
    }
}
