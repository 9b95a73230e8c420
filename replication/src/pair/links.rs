//! Links between being connected and being agreed on.

use crate::LinkId;
use crate::pair::hello::Hello;
use crate::pair::meeting::Greeted;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Hash)]
pub(crate) struct Link {
    pub(crate) dialed: bool,
    pub(crate) since_ms: u64,
    /// The hello that was sent on it.
    pub(crate) mine: Option<Hello>,
    pub(crate) theirs: Option<Hello>,
    /// Both hellos were compared.
    pub(crate) met: bool,
}

impl Link {
    pub(crate) fn greeted(&self) -> Option<Greeted<'_>> {
        let (mine, theirs) = (self.mine.as_ref()?, self.theirs.as_ref()?);
        Some(Greeted { dialed: self.dialed, mine, theirs })
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Links(BTreeMap<LinkId, Link>);

impl Links {
    pub(crate) fn add(&mut self, link: LinkId, dialed: bool, now_ms: u64) {
        let fresh = Link { dialed, since_ms: now_ms, mine: None, theirs: None, met: false };
        self.0.insert(link, fresh);
    }

    pub(crate) fn remove(&mut self, link: LinkId) -> bool {
        self.0.remove(&link).is_some()
    }

    pub(crate) fn get(&self, link: LinkId) -> Option<&Link> {
        self.0.get(&link)
    }

    pub(crate) fn get_mut(&mut self, link: LinkId) -> Option<&mut Link> {
        self.0.get_mut(&link)
    }

    pub(crate) fn theirs(&self, link: LinkId) -> Option<&Hello> {
        self.0.get(&link)?.theirs.as_ref()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Links on which nothing was said yet.
    pub(crate) fn silent(&self) -> Vec<LinkId> {
        self.0.iter().filter(|(_, link)| link.mine.is_none()).map(|(id, _)| *id).collect()
    }

    /// A link whose hellos wait to be compared.
    pub(crate) fn to_meet(&self) -> Option<LinkId> {
        let ready = |link: &Link| !link.met && link.greeted().is_some();
        self.0.iter().find(|(_, link)| ready(link)).map(|(id, _)| *id)
    }

    /// Links on which a hello of an earlier state of this node stands.
    pub(crate) fn spoken(&self) -> Vec<LinkId> {
        self.0.iter().filter(|(_, link)| link.mine.is_some()).map(|(id, _)| *id).collect()
    }

    /// Links whose peer did not say hello for so long, and when the next one will be so.
    pub(crate) fn overdue(&self, now_ms: u64, limit_ms: u64) -> (Vec<LinkId>, Option<u64>) {
        let waiting = || self.0.iter().filter(|(_, link)| !link.met);
        let late = |link: &Link| link.since_ms + limit_ms <= now_ms;
        let overdue = waiting().filter(|(_, link)| late(link)).map(|(id, _)| *id).collect();
        let next = waiting().filter(|(_, link)| !late(link)).map(|(_, l)| l.since_ms + limit_ms);
        (overdue, next.min())
    }
}

#[cfg(test)]
impl std::hash::Hash for Links {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        // Of the hellos' numbers, only their order counts (`prefer_new`).
        let mine = |link: &Link| link.mine.as_ref().map(|hello| hello.serial);
        let theirs = |link: &Link| link.theirs.as_ref().map(|hello| hello.serial);
        for serial in [&mine as &dyn Fn(&Link) -> Option<u64>, &theirs] {
            let mut order: Vec<_> = self.0.iter().map(|(id, link)| (serial(link), *id)).collect();
            order.sort_unstable();
            order.into_iter().for_each(|(_, id)| id.hash(state));
        }
    }
}
