//! Neither leading nor following: at start, after the master was lost, while an election runs.

use crate::pair::code::Code;
use crate::pair::config::Survival;
use crate::pair::core::Core;
use crate::pair::follow::Follow;
use crate::pair::hello::Hello;
use crate::pair::judging::Want;
use crate::pair::lead::Lead;
use crate::pair::meeting::{Meeting, meet};
use crate::pair::message::Message;
use crate::pair::state::{Next, State, rejected};
#[cfg(test)]
use crate::pair::tests::broken::{self, Broken};
use crate::pair::view::Standing;
use crate::{LinkId, Output};
use understudy_model::Epoch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Seeking,
    /// I won the election; my own promise is being saved.
    Proposing {
        link: LinkId,
        epoch: Epoch,
        version: u64,
    },
    /// The peer is asked to give up its claim.
    Proposed {
        link: LinkId,
        epoch: Epoch,
    },
    /// I lost the election and wait to be asked.
    Yielding {
        link: LinkId,
    },
    Promising {
        link: LinkId,
        epoch: Epoch,
        version: u64,
    },
    /// Promised: the winner will say hello again, as leader.
    Promised {
        link: LinkId,
    },
    /// The arbiter is asked; the peer on `link` has promised `epoch`.
    Claiming {
        link: LinkId,
        epoch: Epoch,
    },
    /// The right to lead is being saved (R3, R5); the peer on `link` has promised.
    Assuming {
        link: Option<LinkId>,
        epoch: Epoch,
        version: u64,
    },
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Idle {
    /// Lost its master in this run; otherwise just started, or stepped down.
    pub(crate) orphan: bool,
    /// When silence decides; none: only the peer can.
    pub(crate) deadline_ms: Option<u64>,
    /// The arbiter is asked for the role while the peer is still looked for.
    pub(crate) claims: bool,
    pub(crate) step: Step,
    step_since_ms: u64,
}

impl Idle {
    pub(crate) fn starting(core: &mut Core) -> Self {
        core.dialer.investigate(core.now_ms);
        core.read_register();
        let deadline_ms = Some(core.now_ms + core.silence_ms());
        Self {
            orphan: false,
            deadline_ms,
            claims: false,
            step: Step::Seeking,
            step_since_ms: core.now_ms,
        }
    }

    /// The link to the master ended; its last sign of life was at `heard_ms`.
    pub(crate) fn orphan(core: &mut Core, heard_ms: u64) -> Self {
        let deadline_ms = Some(heard_ms + core.takeover_ms());
        Self { orphan: true, deadline_ms, ..Self::starting(core) }
    }

    /// The master said that its process ends: nobody else can be answering clients.
    pub(crate) fn bereaved(core: &mut Core, out: &mut Vec<Output>) -> State {
        let mut idle = Self::orphan(core, core.now_ms);
        let next = idle.decide(core, "the master has said goodbye", out);
        next.unwrap_or(State::Idle(idle))
    }

    /// The master has given up its right on disk and hands it over: no policy is asked.
    pub(crate) fn heir(core: &mut Core, out: &mut Vec<Output>) -> State {
        let mut idle = Self::orphan(core, core.now_ms);
        core.say(false, "the master hands over".into(), out);
        idle.claim(core, false, out);
        State::Idle(idle)
    }

    /// By the operator's word instead of the policy's.
    pub(crate) fn promote(
        &mut self,
        core: &mut Core,
        force: bool,
        out: &mut Vec<Output>,
    ) -> Result<(), &'static str> {
        if self.step != Step::Seeking || core.log_changes {
            return Err("an election is under way");
        }
        if core.view.standing == Standing::Empty || core.view.copying.is_some() {
            return Err("this node holds no complete copy");
        }
        if matches!(core.view.standing, Standing::Lagging { .. }) && !force {
            return Err("this copy may lack commands that were answered; --force accepts that");
        }
        let text = format!("promoted by the operator, {}, force: {force}", core.view.standing);
        core.say(true, text, out);
        self.claim(core, force, out);
        Ok(())
    }

    pub(crate) fn link(&self) -> Option<LinkId> {
        match self.step {
            Step::Seeking => None,
            Step::Proposing { link, .. }
            | Step::Proposed { link, .. }
            | Step::Yielding { link }
            | Step::Promising { link, .. }
            | Step::Promised { link }
            | Step::Claiming { link, .. } => Some(link),
            Step::Assuming { link, .. } => link,
        }
    }

    /// `copying`: the next master gives a whole copy.
    pub(crate) fn state(&self, copying: bool) -> &'static str {
        match self.step {
            Step::Seeking if copying => "awaiting-copy",
            Step::Seeking if self.claims => "taking-over",
            Step::Seeking if self.deadline_ms.is_none() => "waiting",
            Step::Seeking if self.orphan => "orphan",
            Step::Assuming { .. } | Step::Claiming { .. } => "taking-over",
            _ => "meeting",
        }
    }

    pub(crate) fn deadline_ms(&self, core: &Core) -> Option<u64> {
        match self.step {
            // A link that stands says more than silence; it is dropped if nothing comes of it.
            Step::Seeking if core.log_changes || !core.links.is_empty() => None,
            Step::Seeking => self.deadline_ms,
            Step::Assuming { .. } => None,
            _ => Some(self.step_since_ms + core.config.suspect_ms),
        }
    }

    /// See `Pair::awoke`.
    pub(crate) fn awoke(&mut self, core: &Core) {
        let earliest_ms = core.now_ms + core.config.suspect_ms;
        self.deadline_ms = self.deadline_ms.map(|at_ms| at_ms.max(earliest_ms));
    }

    pub(crate) fn go(&mut self, core: &Core, step: Step) {
        self.step = step;
        self.step_since_ms = core.now_ms;
    }

    pub(crate) fn tick(&mut self, core: &mut Core, out: &mut Vec<Output>) -> Next {
        if core.register_is_foreign() {
            return Some(self.stop_at_foreign_register(core, out));
        }
        #[cfg(test)]
        if let Step::Assuming { link, epoch, .. } = self.step
            && broken::is(Broken::LeadsEarly)
        {
            return Some(Lead::begin(core, epoch, link, out));
        }
        let late = self.deadline_ms(core).is_some_and(|at| at <= core.now_ms);
        let mut next = None;
        if let (true, Some(link)) = (late, self.link()) {
            core.drop_link(link, out);
            self.seek(core);
        } else if self.step == Step::Seeking && !core.log_changes {
            if self.is_sure_to_lead(core) {
                self.claim(core, false, out);
            } else if late {
                next = self.decide(core, "nobody answers", out);
            }
        }
        core.dialer.wanted = self.step == Step::Seeking;
        next
    }

    /// Whether to go on without the peer, which is gone or silent (docs/replication.md section 2).
    fn decide(&mut self, core: &mut Core, why: &str, out: &mut Vec<Output>) -> Next {
        self.deadline_ms = None;
        if core.has_arbiter() {
            return self.decide_by_arbiter(core, why, out);
        }
        #[cfg(test)]
        if match core.view.standing {
            Standing::Empty => broken::is(Broken::EmptyLeads),
            Standing::Lagging { .. } => broken::is(Broken::StaleServes),
            _ => false,
        } {
            self.claim(core, false, out);
            return None;
        }
        let Standing::Synced { led, epoch } = core.view.standing else {
            let text = format!("waiting for the master: {why}, and this copy may lack commands");
            core.say(true, text, out);
            return None;
        };
        let policy = core.policy();
        let survival =
            if self.orphan { policy.orphan() } else { policy.boot(led, core.config.role) };
        match survival {
            Survival::Lead => {
                core.say(true, format!("{why}: going on without the peer of epoch {epoch}"), out);
                self.claim(core, false, out);
                None
            }
            Survival::Wait => {
                let text = format!(
                    "waiting for the peer: {why}, and it may have gone on alone (policy {}, \
                     configured as {})",
                    policy.name(),
                    core.preferred_role()
                );
                core.say(true, text, out);
                None
            }
            Survival::Stop => {
                let text = format!("{why}; shutdown_on_master_failure is set: this slave stops");
                core.say(true, text.clone(), out);
                Some(State::stop(Ok(text), out))
            }
        }
    }

    pub(crate) fn assume(
        &mut self,
        core: &mut Core,
        link: Option<LinkId>,
        epoch: Epoch,
        out: &mut Vec<Output>,
    ) {
        let version = core.assume(epoch, link, out);
        self.go(core, Step::Assuming { link, epoch, version });
    }

    pub(crate) fn dial_failed(
        &mut self,
        core: &mut Core,
        refused: bool,
        out: &mut Vec<Output>,
    ) -> Next {
        // At start a refusal says only that the peer is not up yet, not what it did before.
        // With an arbiter, only the end of the master's lease counts.
        let in_sync = matches!(core.view.standing, Standing::Synced { .. }) && !core.has_arbiter();
        if refused && self.orphan && in_sync && self.step == Step::Seeking {
            return self.decide(core, "the master's process is gone", out);
        }
        None
    }

    pub(crate) fn met(&mut self, core: &mut Core, link: LinkId, out: &mut Vec<Output>) -> Next {
        let known = core.links.get(link)?;
        let (mine, theirs) = (known.mine.clone()?, known.theirs.clone()?);
        if self.orphan && self.deadline_ms.is_some() {
            self.deadline_ms = Some(core.now_ms + core.takeover_ms());
        }
        core.heard_of(theirs.promised);
        let claimed = self.claims;
        self.no_claim(core);
        let next = self.meeting(core, link, meet(&mine, &theirs), theirs, out);
        if claimed && next.is_none() && self.step == Step::Seeking {
            // Nothing came of it, and nobody else would begin the claim again.
            self.seek(core);
        }
        next
    }

    fn meeting(
        &mut self,
        core: &mut Core,
        link: LinkId,
        meeting: Meeting,
        theirs: Hello,
        out: &mut Vec<Output>,
    ) -> Next {
        match meeting {
            Meeting::Reject(code) => {
                core.reject(link, code, false, out);
                rejected(core, code, theirs.leading.is_some(), out)
            }
            Meeting::Follow if theirs.leading.is_some_and(|epoch| epoch < core.view.promised) => {
                // Promised since my hello (R1); the leader takes a newer epoch when it hears so.
                core.reject(link, Code::StaleEpoch, false, out);
                None
            }
            Meeting::Follow if theirs.leading.is_some() => {
                Some(Follow::begin(core, link, theirs, out))
            }
            Meeting::Follow => {
                self.go(core, Step::Yielding { link });
                None
            }
            Meeting::Lead => {
                let epoch = core.next_epoch();
                core.view.promised = epoch;
                let version = core.save(out);
                self.go(core, Step::Proposing { link, epoch, version });
                None
            }
            Meeting::Wait(why) => {
                core.say(true, format!("waiting: {why}"), out);
                core.drop_link(link, out);
                // What was read of the register may have changed since, or be gone, and it says whose
                // claim holds (seed 3513 of the simulator).
                core.read_register();
                None
            }
            Meeting::Renew => {
                core.drop_link(link, out);
                None
            }
        }
    }

    pub(crate) fn lost(&mut self, core: &mut Core, link: LinkId) {
        if self.link() != Some(link) {
            return;
        }
        match self.step {
            // The right is being saved whether the peer looks on or not.
            Step::Assuming { epoch, version, .. } => {
                self.step = Step::Assuming { link: None, epoch, version };
            }
            _ => self.seek(core),
        }
    }

    pub(crate) fn view_saved(
        &mut self,
        core: &mut Core,
        saved: u64,
        out: &mut Vec<Output>,
    ) -> Next {
        match self.step {
            Step::Proposing { link, epoch, version } if version <= saved => {
                core.send(link, &Message::Propose { epoch }, out);
                self.go(core, Step::Proposed { link, epoch });
                None
            }
            Step::Promising { link, epoch, version } if version <= saved => {
                core.send(link, &Message::Promise { epoch }, out);
                self.go(core, Step::Promised { link });
                None
            }
            Step::Assuming { link, epoch, version } if version <= saved => {
                Some(Lead::begin(core, epoch, link, out))
            }
            _ => None,
        }
    }

    pub(crate) fn message(
        &mut self,
        core: &mut Core,
        link: LinkId,
        message: Message,
        out: &mut Vec<Output>,
    ) -> Next {
        match (self.step, message) {
            (_, Message::Reject { code, leads, promised }) => {
                core.heard_of(promised);
                core.drop_link(link, out);
                self.lost(core, link);
                rejected(core, code, leads, out)
            }
            (Step::Yielding { link: from }, Message::Propose { epoch }) if from == link => {
                self.promise(core, link, epoch, out);
                None
            }
            (Step::Proposed { link: from, epoch }, Message::Promise { epoch: promised })
                if from == link && epoch == promised =>
            {
                if core.has_arbiter() {
                    core.want(Want::Lead { epoch: Some(epoch), force: false });
                    self.go(core, Step::Claiming { link, epoch });
                } else {
                    self.assume(core, Some(link), epoch, out);
                }
                None
            }
            (Step::Promised { link: from }, Message::Hello(theirs)) if from == link => {
                self.follow_winner(core, link, *theirs, out)
            }
            _ => {
                core.drop_link(link, out);
                self.lost(core, link);
                None
            }
        }
    }

    /// R1, R4: the own claim is given up on disk before the other may take it.
    fn promise(&mut self, core: &mut Core, link: LinkId, epoch: Epoch, out: &mut Vec<Output>) {
        let Some(theirs) = core.links.theirs(link).cloned() else { return };
        if epoch <= core.view.promised {
            core.reject(link, Code::StaleEpoch, false, out);
            self.seek(core);
            return;
        }
        core.adopt_peer(&theirs);
        core.view.cluster = theirs.cluster;
        core.view.promised = epoch;
        #[cfg(test)]
        let claim = core.view.standing;
        core.view.standing = Standing::Lagging { epoch };
        #[cfg(test)]
        if broken::is(Broken::KeepsClaim) {
            core.view.standing = claim;
        }
        let version = core.save(out);
        self.go(core, Step::Promising { link, epoch, version });
    }

    fn follow_winner(
        &mut self,
        core: &mut Core,
        link: LinkId,
        theirs: Hello,
        out: &mut Vec<Output>,
    ) -> Next {
        if theirs.leading != Some(core.view.promised) {
            core.drop_link(link, out);
            self.lost(core, link);
            return None;
        }
        if let Some(known) = core.links.get_mut(link) {
            known.theirs = Some(theirs.clone());
        }
        Some(Follow::begin(core, link, theirs, out))
    }
}
