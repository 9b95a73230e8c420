//! What every state of the pair shares: view, log ends, links, clock.

use crate::pair::arbitration::Arbitration;
use crate::pair::code::Code;
use crate::pair::config::{PairConfig, Policy, Role};
use crate::pair::copying::Taking;
use crate::pair::dialer::Dialer;
use crate::pair::hello::Hello;
use crate::pair::links::Links;
use crate::pair::message::Message;
use crate::pair::random::Random;
use crate::pair::resync::Copies;
use crate::pair::view::{Standing, View, ViewError};
use crate::{Boot, DiskSpace, LinkId, LogEnd, Output};
use understudy_model::{Epoch, EpochStart, Features, Group, Lsn, NodeId, Text};

/// The ends of the local log.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Log {
    pub(crate) base: Lsn,
    pub(crate) durable: Lsn,
    /// Given to the log writer, with the chain hash there.
    pub(crate) appended: Lsn,
    pub(crate) chain: u128,
}

impl Log {
    pub(crate) fn ending(end: LogEnd) -> Self {
        Self { base: end.base, durable: end.last, appended: end.last, chain: end.last_chain }
    }

    pub(crate) fn append(&mut self, group: &Group) {
        self.appended = group.last();
        self.chain = group.header().chain;
    }

    /// Reports may come late, for a log that was cut or replaced since.
    pub(crate) fn set_durable(&mut self, through: Lsn) {
        self.durable = self.durable.max(through.min(self.appended));
    }
}

/// Where the counters of a process begin; in tests far from every other number, so that the search can
/// tell them (`tests/search/print.rs`).
pub(crate) const COUNT_FROM: u64 = if cfg!(test) { 1 << 42 } else { 0 };

#[derive(Clone)]
pub(crate) struct Core {
    pub(crate) config: PairConfig,
    pub(crate) view: View,
    pub(crate) log: Log,
    pub(crate) commit: Lsn,
    pub(crate) links: Links,
    pub(crate) dialer: Dialer,
    pub(crate) now_ms: u64,
    /// The log is being cut or replaced by a copy: its end is not known.
    pub(crate) log_changes: bool,
    /// A read of a copy was asked for and not answered.
    pub(crate) copy_read: bool,
    /// The node takes in what a returning slave had committed alone, and has not answered.
    pub(crate) reinjecting: bool,
    pub(crate) copies: Copies,
    pub(crate) space: DiskSpace,
    /// The copy that this node takes, if it has begun in this run.
    pub(crate) taking: Option<Taking>,
    pub(crate) arbiter: Option<Arbitration>,
    /// When the disk last completed a write.
    pub(crate) disk_ms: Option<u64>,
    /// In the state that is applied.
    pub(crate) features_on: Features,
    /// The question that the peer has not answered.
    pub(crate) fetching: Option<(LinkId, u64)>,
    /// This node was half of an in-sync pair since it started.
    pub(crate) paired: bool,
    /// Where clients find the peer while it leads, as it told last.
    pub(crate) peer_client_addresses: Text,
    /// Last thing that was said to the operator, also the status page's reason.
    pub(crate) reason: String,
    random: Random,
    process: u64,
    hellos: u64,
    version: u64,
    saved: u64,
    /// Highest epoch heard of, promised or not.
    seen: Epoch,
}

impl Core {
    pub(crate) fn new(boot: &Boot, config: PairConfig) -> Result<Self, ViewError> {
        let mut random = Random::new(&boot.random);
        let view = View::load(boot, &config, &mut random)?;
        if let (Some(why), Standing::Alone { .. }) = (&boot.damaged, view.standing) {
            return Err(ViewError::Damaged(why.clone()));
        }
        let commit = match view.standing {
            _ if boot.damaged.is_some() => Lsn::ZERO,
            // The in-sync set was this node: what is durable was committed, or is now.
            Standing::Alone { .. } => boot.log.last,
            _ => boot.applied.max(view.commit).min(boot.log.last),
        };
        Ok(Self {
            dialer: Dialer::new(config.redial_ms, config.redial_max_ms),
            process: random.next(),
            arbiter: config.arbiter.map(|arbiter| Arbitration::new(arbiter.lease_ms)),
            disk_ms: None,
            config,
            view,
            log: Log::ending(boot.log),
            commit,
            links: Links::default(),
            now_ms: boot.now_ms,
            log_changes: false,
            peer_client_addresses: Text::default(),
            copy_read: false,
            reinjecting: false,
            copies: Copies::default(),
            space: DiskSpace::Enough,
            taking: None,
            features_on: boot.features,
            fetching: None,
            paired: false,
            reason: String::new(),
            random,
            hellos: 2 * COUNT_FROM,
            version: COUNT_FROM,
            saved: COUNT_FROM,
            seen: Epoch::default(),
        })
    }

    /// One line for the operator; the same line is not repeated.
    pub(crate) fn say(&mut self, warn: bool, text: String, out: &mut Vec<Output>) {
        if self.reason != text {
            self.reason.clone_from(&text);
            out.push(Output::Log { warn, text });
        }
    }

    /// Makes the view durable. Whoever depends on it waits for the version that this returns.
    pub(crate) fn save(&mut self, out: &mut Vec<Output>) -> u64 {
        self.version += 1;
        // While a copy is made, what was committed is only known again at its end.
        let copying = self.view.copying.is_some();
        self.view.commit = if copying { Lsn::ZERO } else { self.commit };
        out.push(Output::SaveView { version: self.version, view: self.view.encode() });
        self.version
    }

    /// Of the newest view, saved or not.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn saved(&self) -> u64 {
        self.saved
    }

    pub(crate) fn view_saved(&mut self, version: u64) {
        self.saved = self.saved.max(version);
    }

    /// A hello describes what is on disk, so none is said while that is changing.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_saved() && !self.log_changes && self.arbiter_is_settled()
    }

    pub(crate) fn commit_through(&mut self, through: Lsn, out: &mut Vec<Output>) {
        if through > self.commit {
            self.commit = through;
            out.push(Output::Commit { through });
        }
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy::of(&self.config).or(self.view.peer_policy)
    }

    pub(crate) fn heard_of(&mut self, epoch: Epoch) {
        self.seen = self.seen.max(epoch);
    }

    /// R5: above every promise in reach.
    pub(crate) fn next_epoch(&mut self) -> Epoch {
        let number = self.view.promised.max(self.seen).number + 1;
        Epoch { number, generation: self.random.next() }
    }

    /// Takes the exclusive right to lead `epoch`: on disk first (R1, R3), so the caller waits for
    /// the version. Other links carry a hello of the state that ends here.
    pub(crate) fn assume(
        &mut self,
        epoch: Epoch,
        keep: Option<LinkId>,
        out: &mut Vec<Output>,
    ) -> u64 {
        self.drop_spoken(keep, out);
        self.view.history.truncate_after(self.log.appended);
        let first = self.log.appended.next();
        self.view.push_epoch(EpochStart { epoch, first, leader: self.view.node });
        self.view.promised = epoch;
        self.view.standing = Standing::Alone { epoch, since: self.log.appended };
        self.save(out)
    }

    /// What the peer told about itself is kept for the time when it is away.
    pub(crate) fn adopt_peer(&mut self, theirs: &Hello) {
        self.view.peer = Some(theirs.node);
        self.view.peer_address = theirs.address.clone();
        self.view.peer_policy = theirs.policy;
        self.peer_client_addresses = theirs.client_addresses.clone();
    }

    /// As `adopt_peer`, and on disk once the version is saved that this returns.
    pub(crate) fn keep_peer(&mut self, theirs: &Hello, out: &mut Vec<Output>) -> u64 {
        let kept = |view: &View| (view.peer, view.peer_address.clone(), view.peer_policy);
        let before = kept(&self.view);
        self.adopt_peer(theirs);
        if kept(&self.view) == before { self.version } else { self.save(out) }
    }

    /// The pause before the next attempt is random, lest two nodes that dial each other do so in
    /// step for ever. True if the outcome tells something.
    pub(crate) fn dial_ended(&mut self) -> bool {
        let random = self.random.next();
        self.dialer.ended(self.now_ms, random)
    }

    pub(crate) fn peer_address(&self) -> Option<Text> {
        let learned = Some(&self.view.peer_address).filter(|address| !address.is_empty());
        let address = self.config.peer_address.as_ref().or(learned)?;
        (*address != self.config.advertised_address).then(|| address.clone())
    }

    /// Says hello on `link`; `attached` is the node that holds the slot now, if any.
    pub(crate) fn greet(
        &mut self,
        link: LinkId,
        leading: Option<Epoch>,
        attached: Option<NodeId>,
        out: &mut Vec<Output>,
    ) {
        self.hellos += 1;
        let hello = Hello {
            protocols: self.config.protocols,
            features: self.config.features,
            features_on: self.features_on,
            leading,
            process: self.process,
            serial: self.hellos,
            cluster: self.view.cluster,
            node: self.view.node,
            peer: attached.or(self.view.peer),
            forgotten: self.view.forgotten,
            role: self.config.role,
            standing: self.standing_to_say(leading.is_some()),
            promised: self.view.promised,
            history: self.view.history.clone(),
            base: self.log.base,
            last: self.log.appended,
            chain: self.log.chain,
            commit: self.commit,
            address: self.config.advertised_address.clone(),
            client_addresses: self.config.client_addresses.clone(),
            policy: Policy::of(&self.config),
            arbiter: self.config.arbiter.map_or(0, |arbiter| arbiter.id),
        };
        if let Some(known) = self.links.get_mut(link) {
            known.mine = Some(hello.clone());
            self.send(link, &Message::Hello(Box::new(hello)), out);
        }
    }

    /// A leader in office claims what its disk says.
    pub(crate) fn standing_to_say(&self, leads: bool) -> Standing {
        if leads { self.view.standing } else { self.claim() }
    }

    pub(crate) fn send(&self, link: LinkId, message: &Message, out: &mut Vec<Output>) {
        out.push(Output::Send { link, frame: message.encode() });
    }

    pub(crate) fn drop_link(&mut self, link: LinkId, out: &mut Vec<Output>) {
        if self.links.remove(link) {
            out.push(Output::HangUp { link });
        }
    }

    pub(crate) fn drop_spoken(&mut self, keep: Option<LinkId>, out: &mut Vec<Output>) {
        for link in self.links.spoken() {
            if Some(link) != keep {
                self.drop_link(link, out);
            }
        }
    }

    pub(crate) fn is_low_on_space(&self) -> bool {
        self.space != DiskSpace::Enough
    }

    /// What the disk says is what memory says.
    pub(crate) fn is_saved(&self) -> bool {
        self.saved == self.version
    }

    /// Tells the peer why its link ends.
    pub(crate) fn reject(&mut self, link: LinkId, code: Code, leads: bool, out: &mut Vec<Output>) {
        let message = Message::Reject { code, leads, promised: self.view.promised };
        self.send(link, &message, out);
        self.drop_link(link, out);
    }

    pub(crate) fn preferred_role(&self) -> &'static str {
        match self.config.role {
            Role::Master => "master",
            Role::Slave => "slave",
        }
    }
}

#[cfg(test)]
impl Core {
    /// What is drawn next, whatever was drawn before.
    pub(crate) fn reseed(&mut self, seed: u64) {
        self.random = Random::new(&[seed; 8]);
    }
}

/// What a node does from here on depends on this.
#[cfg(test)]
impl std::hash::Hash for Core {
    #[rustfmt::skip]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let Self {
            view, log, commit, links, dialer, now_ms, log_changes, copy_read, reinjecting, space,
            taking, arbiter, disk_ms, features_on, fetching, paired, process, hellos, version, saved, seen,
            // For the operator's eyes only, or the same in every state of one search.
            config: _, copies: _, peer_client_addresses: _, reason: _, random: _,
        } = self;
        (view, log, commit, links, dialer, now_ms, log_changes, copy_read).hash(state);
        (reinjecting, space, taking, arbiter, disk_ms, features_on, fetching).hash(state);
        (paired, process, hellos, version, saved, seen).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_report_of_a_log_that_was_cut_makes_nothing_durable() {
        let mut log = Log::ending(LogEnd { last: Lsn(10), ..LogEnd::default() });
        for late in [Lsn(20), Lsn(5)] {
            log.set_durable(late);
            assert_eq!(log.durable, Lsn(10));
        }
    }
}
