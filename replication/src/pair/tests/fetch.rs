//! What one node's disk has lost is fetched from the other's.

use super::stories::{in_sync, publish};
use super::world::World;
use crate::{Found, Input, Wanted};
use understudy_model::Lsn;

pub(super) fn ask(world: &mut World, host: usize, id: u64, wanted: Wanted) -> Option<Found> {
    world.input(host, Input::Fetch { id, wanted });
    world.until(500, |w| w.hosts[host].fetched.iter().any(|(answered, _)| *answered == id));
    let fetched = &world.hosts[host].fetched;
    fetched.iter().find(|(answered, _)| *answered == id).map(|(_, found)| found.clone())
}

#[test]
fn either_node_gets_from_the_other_what_that_has() {
    let mut world = in_sync();
    publish(&mut world, 0, 3);
    world.run(500);
    let last = world.last_group(0).unwrap().clone();
    for host in [0, 1] {
        let group = ask(&mut world, host, 1, Wanted::Group { holding: last.first() });
        assert_eq!(group, Some(Found::Group(last.clone())));
        let wanted = vec![last.last(), Lsn(9_999)];
        let record = (last.last(), last.record(last.last()).unwrap());
        let records = ask(&mut world, host, 2, Wanted::Records(wanted));
        assert_eq!(records, Some(Found::Records(vec![record])));
        let behind = ask(&mut world, host, 3, Wanted::Group { holding: Lsn(9_999) });
        assert_eq!(behind, Some(Found::Nothing));
    }
    assert!(world.in_sync_pair(0, 1), "a question changes nothing");
}

#[test]
fn who_has_no_peer_or_loses_it_is_told_so() {
    let mut world = in_sync();
    let first = Wanted::Group { holding: Lsn(1) };
    world.input(1, Input::Fetch { id: 1, wanted: first.clone() });
    world.crash(0);
    assert!(world.until(5_000, |w| !w.hosts[1].fetched.is_empty()));
    let fetched = &world.hosts[1].fetched;
    assert!(matches!(fetched[..], [(1, Found::NoPeer | Found::Group(_))]), "{fetched:?}");
    assert!(world.until(5_000, |w| w.process(1).is_some_and(|p| p.serving)));
    assert_eq!(ask(&mut world, 1, 2, first.clone()), Some(Found::NoPeer));
    world.start(0);
    assert!(world.until(5_000, |w| w.in_sync_pair(0, 1)));
    assert!(matches!(ask(&mut world, 1, 3, first), Some(Found::Group(_))));
}
