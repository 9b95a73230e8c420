//! One node for ever, or for as long as it owns a shared data directory: committed is what is
//! durable here. Whether this process still owns it is the shell's matter (`src/ownership.rs`).

use crate::{Backend, Boot, Found, Input, LogEnd, Output, Status};
use bytes::{Bytes, BytesMut};
use understudy_model::{Epoch, Features, Lsn, Malformed, NodeId, Reader, Writer};

pub struct Standalone {
    view: View,
    log: LogEnd,
    commit: Lsn,
    saving: bool,
    /// LSN of the epoch's first group's end, once sealed.
    opened_by: Option<Lsn>,
    open: bool,
    features: Features,
    /// What the status calls a node that serves.
    serving: &'static str,
}

/// What a standalone node keeps of its masterships.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    node: NodeId,
    epoch: Epoch,
}

const VIEW_TAG: u8 = b'S';

impl View {
    fn encode(self) -> Bytes {
        let mut out = BytesMut::new();
        let mut w = Writer(&mut out);
        w.u8(VIEW_TAG);
        w.u128(self.node.0);
        w.varint(self.epoch.number);
        w.varint(self.epoch.generation);
        out.freeze()
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        if r.u8()? != VIEW_TAG {
            return Err(Malformed("view: the data directory belongs to a pair, not a standalone"));
        }
        let node = NodeId(r.u128()?);
        Ok(Self { node, epoch: Epoch { number: r.varint()?, generation: r.varint()? } })
    }
}

impl Standalone {
    /// # Errors
    /// The view record is not one of a standalone node.
    pub fn new(boot: &Boot, out: &mut Vec<Output>) -> Result<Self, Malformed> {
        let node = NodeId(u128::from(boot.random[0]) << 64 | u128::from(boot.random[1]));
        let mut view = match &boot.view {
            Some(bytes) => View::decode(bytes)?,
            None => View { node, epoch: Epoch::default() },
        };
        view.epoch = Epoch { number: view.epoch.number + 1, generation: boot.random[2] };
        if boot.log.last > Lsn::ZERO {
            out.push(Output::Commit { through: boot.log.last });
        }
        out.push(Output::SaveView { version: 1, view: view.encode() });
        let commit = boot.log.last;
        Ok(Self {
            view,
            log: boot.log,
            commit,
            saving: true,
            opened_by: None,
            open: false,
            features: boot.features,
            serving: "standalone",
        })
    }

    /// The owner of a shared data directory; `epoch` rises with each owner.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn owner(boot: &Boot, epoch: u64, out: &mut Vec<Output>) -> Result<Self, Malformed> {
        let mut owner = Self::new(boot, out)?;
        owner.serving = "leading";
        owner.view.epoch.number = owner.view.epoch.number.max(epoch);
        out.retain(|output| !matches!(output, Output::SaveView { .. }));
        out.push(Output::SaveView { version: 1, view: owner.view.encode() });
        Ok(owner)
    }
}

impl Backend for Standalone {
    fn handle(&mut self, _now_ms: u64, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::ViewSaved { .. } if self.saving => {
                self.saving = false;
                out.push(Output::Lead { epoch: self.view.epoch, leader: self.view.node });
            }
            Input::Sealed(group) => {
                self.opened_by.get_or_insert(group.last());
            }
            Input::Durable { through } => {
                self.log.last = through;
                self.commit = through;
                out.push(Output::Commit { through });
                if !self.open && self.opened_by.is_some_and(|lsn| lsn <= through) {
                    self.open = true;
                    out.push(Output::OpenFrontends);
                    // No other program reads this log.
                    let features = Features::KNOWN.without(self.features);
                    if !features.is_empty() {
                        out.push(Output::SwitchOn { features });
                    }
                }
            }
            Input::Promote { .. } => out.push(Output::Log {
                warn: true,
                text: "promotion refused: a standalone broker leads already".into(),
            }),
            Input::HandOver => out.push(Output::Log {
                warn: true,
                text: "switchover refused: a standalone broker has no slave".into(),
            }),
            Input::Resync | Input::ForgetSlave { .. } => out.push(Output::Log {
                warn: true,
                text: "refused: a standalone broker has no other node".into(),
            }),
            Input::Fetch { id, .. } => out.push(Output::Fetched { id, found: Found::Nobody }),
            Input::Stopping => out.push(Output::Stop { outcome: Ok("asked to stop".into()) }),
            _ => {}
        }
    }

    fn deadline_ms(&self) -> Option<u64> {
        None
    }

    fn retain_after(&self) -> Option<Lsn> {
        None
    }

    fn features_on(&mut self, features: Features) {
        self.features = features;
    }

    fn status(&self) -> Status {
        Status {
            role: "master",
            state: if self.open { self.serving } else { "starting" },
            epoch: self.view.epoch.number,
            node_id: self.view.node.to_string(),
            durable: self.log.last.0,
            commit: self.commit.0,
            arbiter: "none",
            ..Status::default()
        }
    }
}
