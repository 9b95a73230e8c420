//! What the search has found, told as a course of events.

use super::actions::{Action, Source};
use super::broken::{self, Broken};
use super::starts::{Setting, taken_over};
use super::world::World;
use crate::pair::tests::disk::Job;
use crate::pair::view::{Standing, View};

/// Host 1 has taken over and leads alone. Host 0 joins on a link of its own while host 1's attempt
/// to connect is still under way. That ends when host 0 is about to be let in: on the second link it
/// says that it lags, which is true; then it reads on the first one that it is in-sync.
fn links_cross_at_the_invitation() -> World {
    let mut world = taken_over(Setting::new("slave_survives", false));
    world.apply(Action::Start(0));
    while !is_giving_up_its_right(&world) {
        let source = world.next().unwrap();
        world.apply(Action::Run(source));
    }
    for source in [Source::Dial(1), Source::Inbox(0), Source::Inbox(1), Source::Disk(1)] {
        assert!(world.is_ready(source), "{source}");
        world.apply(Action::Run(source));
    }
    world.calm();
    world
}

fn is_giving_up_its_right(world: &World) -> bool {
    world.process(1).is_some_and(|process| {
        process.jobs.iter().any(|job| match job {
            Job::SaveView { view, .. } => {
                let standing = View::decode(view).map(|view| view.standing);
                matches!(standing, Ok(Standing::Synced { led: true, .. }))
            }
            _ => false,
        })
    })
}

#[test]
fn a_hello_older_than_the_invitation_does_not_free_the_masters_right() {
    broken::set(Some(Broken::TrustsHello));
    let violation = links_cross_at_the_invitation().violation;
    broken::set(None);
    assert!(violation.is_some_and(|rule| rule.starts_with("both may lead alone")));
    let world = links_cross_at_the_invitation();
    assert_eq!(world.violation, None);
    assert!(world.is_in_sync() && world.serves(1));
}
