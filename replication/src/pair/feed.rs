//! What the master sends to its slave, and how far the slave has come.

use crate::pair::contact::Contact;
use crate::pair::core::Core;
use crate::pair::message::{Message, Position};
use crate::pair::recent::Recent;
#[cfg(test)]
use crate::pair::tests::broken::{self, Broken};
use crate::{LinkId, Output};
use std::collections::VecDeque;
use understudy_model::{Epoch, Group, Lsn};

/// On their way to a slave that catches up: the most that its disk writes at a time.
const CATCH_UP_BYTES_MAX: usize = 512 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// Waits for the slave's position.
    Greeted,
    /// A whole copy is on its way, see `copying.rs`.
    Copying,
    /// Catching up; nothing waits for its acks.
    Tail,
    /// R4: acks are required from here on, the exclusive right is still held.
    Joining {
        target: Lsn,
    },
    /// `Synced` is being saved: the exclusive right is given up.
    Widening {
        target: Lsn,
        version: u64,
    },
    /// The arbiter is asked to let the slave lead next.
    Registering {
        target: Lsn,
    },
    /// The slave is told, and saves `Synced` last.
    Inviting,
    /// It was in-sync already, and what it told anew of itself is being saved.
    Resuming {
        version: u64,
    },
    Synced,
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Feed {
    pub(crate) link: LinkId,
    pub(crate) stage: Stage,
    epoch: Epoch,
    /// The slave was in-sync in this epoch and both disks say so, and has not told its position yet:
    /// the version of the view that has what its hello tells of its flags and address.
    resumes: Option<u64>,
    /// Last LSN that was sent, and the chain hash there.
    sent: Lsn,
    chain: u128,
    /// The slave's log is known to be a prefix of this one by its chain hash.
    verified: bool,
    /// What the slave says to have on disk.
    reported: Lsn,
    /// The log is kept behind this point while the slave's own is not known.
    floor: Lsn,
    in_flight: VecDeque<(Lsn, usize)>,
    in_flight_bytes: usize,
    reading: Option<Lsn>,
    pub(crate) heard_ms: u64,
    pub(crate) progress_ms: u64,
    pub(crate) beat_ms: u64,
    pub(crate) contact: Contact,
    /// Whether little room is left on the slave's disk, once it has told.
    pub(crate) low_on_space: Option<bool>,
}

/// The slave's log cannot be continued from this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfit {
    pub(crate) diverged: bool,
}

impl Feed {
    pub(crate) fn new(core: &Core, link: LinkId, epoch: Epoch, resumes: Option<u64>) -> Self {
        let floor = core.links.theirs(link).map_or(core.log.appended, |theirs| theirs.last);
        Self {
            link,
            stage: Stage::Greeted,
            epoch,
            resumes,
            sent: core.log.appended,
            chain: 0,
            verified: false,
            reported: Lsn::ZERO,
            floor,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            reading: None,
            heard_ms: core.now_ms,
            progress_ms: core.now_ms,
            beat_ms: core.now_ms + core.config.beat_ms,
            contact: Contact::default(),
            low_on_space: None,
        }
    }

    /// Whether commit waits for this slave's acks.
    pub(crate) fn is_required(&self) -> bool {
        self.resumes.is_some()
            || matches!(
                self.stage,
                Stage::Joining { .. }
                    | Stage::Widening { .. }
                    | Stage::Registering { .. }
                    | Stage::Inviting
                    | Stage::Resuming { .. }
                    | Stage::Synced
            )
    }

    /// Groups were sent to a slave that nothing waits for, and it has not written them.
    pub(crate) fn owes(&self) -> bool {
        self.stage == Stage::Tail && !self.in_flight.is_empty()
    }

    /// What counts for the commit rule (R2).
    pub(crate) fn acked(&self) -> Lsn {
        if self.verified { self.reported } else { Lsn::ZERO }
    }

    /// Commit waits for an ack of this slave.
    pub(crate) fn lacks(&self, core: &Core) -> bool {
        self.is_required() && self.acked() < core.log.appended
    }

    pub(crate) fn sent(&self) -> Lsn {
        self.sent
    }

    pub(crate) fn is_caught_up(&self, core: &Core) -> bool {
        self.stage == Stage::Tail && self.verified && self.sent == core.log.appended
    }

    pub(crate) fn retain_after(&self) -> Lsn {
        match self.stage {
            Stage::Greeted | Stage::Copying => self.floor,
            _ => self.floor.max(self.acked()),
        }
    }

    pub(crate) fn has_same_log(&self) -> bool {
        self.is_streaming() && self.verified
    }

    fn is_streaming(&self) -> bool {
        !matches!(self.stage, Stage::Greeted | Stage::Copying)
    }

    /// The slave says where its log ends. False: nonsense.
    pub(crate) fn position(&mut self, core: &Core, position: &Position) -> Result<bool, Unfit> {
        let expected = self.stage == Stage::Greeted
            && position.epoch == self.epoch
            && position.synced == self.resumes.is_some();
        if expected && position.copy {
            self.stage = Stage::Copying;
            self.floor = core.commit;
            return Ok(true);
        }
        if !expected || position.last > core.log.appended || position.durable > position.last {
            return Ok(false);
        }
        if position.last < core.log.base {
            return Err(Unfit { diverged: false });
        }
        let resumes = self.resumes.take();
        self.stage = resumes.map_or(Stage::Tail, |version| Stage::Resuming { version });
        self.sent = position.last;
        self.floor = position.last;
        self.chain = position.chain;
        self.reported = position.durable;
        self.verified = false;
        if self.sent == core.log.appended {
            #[cfg(test)]
            if broken::is(Broken::KeepsTail) {
                self.chain = core.log.chain;
            }
            if self.chain != core.log.chain {
                return Err(Unfit { diverged: true });
            }
            self.verified = true;
        }
        Ok(true)
    }

    /// The slave is asked to say its position again, for a copy.
    pub(crate) fn need_copy(&mut self, core: &Core, unfit: Unfit, out: &mut Vec<Output>) {
        self.stage = Stage::Greeted;
        self.floor = core.commit;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.reading = None;
        let message = Message::NeedCopy { epoch: self.epoch, diverged: unfit.diverged };
        core.send(self.link, &message, out);
    }

    pub(crate) fn reported(&mut self, core: &Core, durable: Lsn) -> bool {
        if !self.is_streaming() {
            // Sent before the slave heard that it needs a copy.
            return true;
        }
        if durable > core.log.appended {
            return false;
        }
        if durable > self.reported {
            self.reported = durable;
            self.progress_ms = core.now_ms;
        }
        while let Some(&(last, bytes)) = self.in_flight.front()
            && last <= self.reported
        {
            self.in_flight.pop_front();
            self.in_flight_bytes -= bytes;
        }
        true
    }

    /// Sends what fits the window, from memory or by a read.
    pub(crate) fn pump(
        &mut self,
        core: &Core,
        recent: &Recent,
        out: &mut Vec<Output>,
    ) -> Result<(), Unfit> {
        let most = core.config.window_bytes_max;
        // What a slave has to catch up with must not crowd out what clients wait for.
        let room = if self.is_required() { most } else { most.min(CATCH_UP_BYTES_MAX) };
        while self.is_streaming() && self.in_flight_bytes < room && self.reading.is_none() {
            if let Some(group) = recent.following(self.sent) {
                let group = group.clone();
                self.send(core, group, out)?;
            } else if self.sent < core.log.durable {
                let bytes_max = room - self.in_flight_bytes;
                self.reading = Some(self.sent);
                out.push(Output::ReadGroups { after: self.sent, bytes_max });
            } else {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn groups_read(
        &mut self,
        core: &Core,
        after: Lsn,
        groups: Vec<Group>,
        out: &mut Vec<Output>,
    ) -> Result<(), Unfit> {
        if self.reading != Some(after) {
            return Ok(());
        }
        self.reading = None;
        if groups.is_empty() && after < core.log.durable {
            return Err(Unfit { diverged: false });
        }
        for group in groups {
            if group.first() != self.sent.next() || group.last() > core.log.appended {
                break;
            }
            self.send(core, group, out)?;
        }
        Ok(())
    }

    fn send(&mut self, core: &Core, group: Group, out: &mut Vec<Output>) -> Result<(), Unfit> {
        if group.verify_chain(self.chain).is_err() {
            return Err(Unfit { diverged: !self.verified });
        }
        self.verified = true;
        self.sent = group.last();
        self.chain = group.header().chain;
        self.in_flight.push_back((group.last(), group.bytes().len()));
        self.in_flight_bytes += group.bytes().len();
        // Beats are for idle links, unless their answers are a lease.
        if !core.has_arbiter() {
            self.beat_ms = core.now_ms + core.config.beat_ms;
        }
        let head = Message::group_head(self.epoch, core.commit);
        out.push(Output::SendGroup { link: self.link, head, group });
        Ok(())
    }

    pub(crate) fn beat(&mut self, core: &Core, out: &mut Vec<Output>) {
        if self.beat_ms > core.now_ms {
            return;
        }
        self.beat_ms = core.now_ms + core.config.beat_ms;
        // A commit point is news only for a log that is known to be the same.
        let commit = if self.verified { core.commit } else { Lsn::ZERO };
        self.contact.sent(core.now_ms);
        core.send(self.link, &Message::Beat { epoch: self.epoch, commit }, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::PairConfig;
    use crate::{Boot, LogEnd};
    use understudy_model::Features;

    const LINK: LinkId = LinkId(1);
    const EPOCH: Epoch = Epoch { number: 3, generation: 9 };

    /// A master whose log holds what follows LSN 10 and ends at 20 with the chain hash 7.
    fn core() -> Core {
        let boot = Boot {
            now_ms: 0,
            view: None,
            log: LogEnd::default(),
            applied: Lsn::ZERO,
            features: Features::NONE,
            damaged: None,
            random: [1; 8],
        };
        let mut core = Core::new(&boot, PairConfig::default()).unwrap();
        (core.log.base, core.log.durable, core.log.appended) = (Lsn(10), Lsn(20), Lsn(20));
        core.log.chain = 7;
        core
    }

    fn position(last: u64, chain: u128) -> Position {
        let (last, epoch) = (Lsn(last), EPOCH);
        Position { epoch, last, chain, durable: last, copy: false, taken: None, synced: false }
    }

    fn told(position: Position) -> Result<bool, Unfit> {
        let core = core();
        Feed::new(&core, LINK, EPOCH, None).position(&core, &position)
    }

    #[test]
    fn a_position_fits_or_needs_a_copy_or_is_nonsense() {
        assert_eq!(told(position(20, 7)), Ok(true));
        assert_eq!(told(position(10, 1)), Ok(true));
        assert_eq!(told(position(20, 8)), Err(Unfit { diverged: true }));
        assert_eq!(told(position(9, 1)), Err(Unfit { diverged: false }));
        assert_eq!(told(position(21, 7)), Ok(false), "beyond this log's end");
        assert_eq!(told(Position { durable: Lsn(13), ..position(12, 1) }), Ok(false));
        assert_eq!(told(Position { synced: true, ..position(20, 7) }), Ok(false));
        let later = Epoch { number: 4, ..EPOCH };
        assert_eq!(told(Position { epoch: later, ..position(20, 7) }), Ok(false));
    }

    /// Nothing counts before the logs are known to be the same.
    #[test]
    fn only_acks_of_a_verified_log_count_and_none_beyond_its_end() {
        let core = core();
        let mut feed = Feed::new(&core, LINK, EPOCH, None);
        feed.position(&core, &position(12, 1)).unwrap();
        assert!(feed.reported(&core, Lsn(12)));
        assert_eq!(feed.acked(), Lsn::ZERO);
        let mut feed = Feed::new(&core, LINK, EPOCH, None);
        feed.position(&core, &Position { durable: Lsn(15), ..position(20, 7) }).unwrap();
        assert_eq!(feed.acked(), Lsn(15));
        assert!(feed.reported(&core, Lsn(18)) && !feed.reported(&core, Lsn(21)));
        assert_eq!(feed.acked(), Lsn(18));
    }

    /// Or a slave could commit what only its own log has.
    #[test]
    fn beats_tell_the_commit_point_only_of_a_verified_log() {
        let mut core = core();
        core.commit = Lsn(20);
        core.now_ms = core.config.beat_ms;
        for (at, commit) in [(position(12, 1), Lsn::ZERO), (position(20, 7), Lsn(20))] {
            let mut feed = Feed::new(&core, LINK, EPOCH, None);
            feed.beat_ms = core.now_ms;
            feed.position(&core, &at).unwrap();
            let mut out = Vec::new();
            feed.beat(&core, &mut out);
            let [Output::Send { link: LINK, frame }] = &out[..] else { panic!("{out:?}") };
            assert_eq!(*frame, Message::Beat { epoch: EPOCH, commit }.encode());
        }
    }

    #[test]
    fn a_read_that_finds_nothing_though_there_is_more_needs_a_copy() {
        let core = core();
        let mut feed = Feed::new(&core, LINK, EPOCH, None);
        feed.position(&core, &position(12, 1)).unwrap();
        let mut out = Vec::new();
        feed.pump(&core, &Recent::default(), &mut out).unwrap();
        assert!(matches!(out[..], [Output::ReadGroups { after: Lsn(12), .. }]), "{out:?}");
        let unfit = Err(Unfit { diverged: false });
        assert_eq!(feed.groups_read(&core, Lsn(11), vec![], &mut out), Ok(()), "another's answer");
        assert_eq!(feed.groups_read(&core, Lsn(12), vec![], &mut out), unfit);
    }
}
