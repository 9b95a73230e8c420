//! All courses of events in a small world, on the real `Pair`.
//!
//! `world` is a state, `actions` what may happen in it, `rules` what must hold, `print` makes equal
//! states known, `explore` walks through them, `starts` says from where. `broken` takes one rule
//! out of the real code at a time: the search must find that out.

mod actions;
pub(crate) mod broken;
mod carry_out;
mod explore;
mod print;
mod rules;
mod starts;
mod stories;
mod world;

use actions::Action;
use broken::Broken;
use explore::{Bounds, Outcome, Start, explore};
use rules::Sight;
use starts::Setting;
use world::World;

/// States for each policy; built with `UNDERSTUDY_MODEL_STATES` set it looks at more.
fn states_max(default: usize) -> usize {
    let given = option_env!("UNDERSTUDY_MODEL_STATES").and_then(|text| text.parse().ok());
    given.unwrap_or(default)
}

fn report(name: &str, arbiter: bool, outcome: &Outcome) {
    let sights: Vec<String> = Sight::NAMES
        .iter()
        .zip(&outcome.sights)
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    eprintln!(
        "{name}{}: {} states by departures {:?}, {} steps; {}",
        if arbiter { " with arbiter" } else { "" },
        outcome.states,
        outcome.levels,
        outcome.steps,
        sights.join(", ")
    );
}

fn holds(name: &str, arbiter: bool, must_see: &[Sight]) {
    let starts = starts::all(Setting::new(name, arbiter));
    let outcome = search(name, arbiter, &starts, Bounds::states(states_max(70_000)));
    let apart = if arbiter { &[][..] } else { &WITHOUT_ARBITER };
    for sight in ALWAYS.iter().chain(apart).chain(must_see) {
        assert!(outcome.saw(*sight), "{name}: no {}", Sight::NAMES[sight.index()]);
    }
}

fn search(name: &str, arbiter: bool, starts: &[Start], bounds: Bounds) -> Outcome {
    let outcome = explore(starts, bounds);
    report(name, arbiter, &outcome);
    if let Some(violation) = &outcome.violation {
        panic!("{}\n{}", violation.rule, violation.course.join("\n"));
    }
    outcome
}

/// What comes about under every policy. `STALE` is asked for nowhere: a node refuses a stale epoch only
/// if it has promised a newer one between its hello and the meeting, for which two links have to cross
/// an election. Of `both`, 350,000 states and with them each course with one departure do not have it.
const ALWAYS: [Sight; 7] = [
    Sight::BY_TAIL,
    Sight::BY_COPY,
    Sight::PROMOTION,
    Sight::SWITCHOVER,
    Sight::ELECTION,
    Sight::FORGOTTEN,
    Sight::RESYNC,
];

/// With an arbiter only force has two sides lead apart. That counts as two departures, and the states
/// end among those with one.
const WITHOUT_ARBITER: [Sight; 1] = [Sight::APART];

#[test]
fn the_rules_hold_when_the_slave_survives() {
    holds("slave_survives", false, &[Sight::TAKEOVER, Sight::TRUNCATION, Sight::ALONE]);
}

#[test]
fn the_rules_hold_when_the_master_survives() {
    holds("master_survives", false, &[Sight::RESUMED, Sight::ALONE]);
}

#[test]
fn the_rules_hold_when_nobody_survives_alone() {
    holds("none", false, &[Sight::RESUMED, Sight::CROSSED]);
}

#[test]
fn what_was_answered_is_kept_under_both() {
    holds("both", false, &[Sight::TAKEOVER, Sight::EXPORT, Sight::SET_ASIDE, Sight::ALONE]);
}

#[test]
fn the_rules_hold_with_an_arbiter_whoever_may_survive() {
    holds("both", true, &[Sight::TAKEOVER, Sight::TRUNCATION, Sight::LOST_SWAP]);
    holds("slave_survives", true, &[Sight::TAKEOVER, Sight::LOST_SWAP]);
}

#[test]
fn the_rules_hold_with_an_arbiter_if_the_slave_stops_without_its_master() {
    holds("master_survives", true, &[Sight::TRUNCATION, Sight::LOST_SWAP]);
    holds("none", true, &[Sight::LOST_SWAP]);
}

#[test]
fn the_rules_hold_when_a_swap_comes_late() {
    let setting = Setting::new("both", true);
    for (name, world) in [
        ("the slave has overtaken its master", starts::overtaken(setting)),
        ("the master slept", starts::slept(setting)),
    ] {
        let outcome = search("both", true, &[Start { name, world }], Bounds::states(15_000));
        assert!(outcome.levels.len() > 1, "{name}: {:?}", outcome.levels);
    }
}

/// Whole, unlike what is searched above: every course with up to two of these, in a pair in sync.
fn holds_through_two(departs: fn(Action) -> bool) {
    for name in ["slave_survives", "master_survives", "none", "both"] {
        let world = starts::in_sync(Setting::new(name, false));
        let bounds = Bounds { states_max: 200_000, departures_max: 2, departs };
        let outcome = search(name, false, &[Start { name: "an in-sync pair", world }], bounds);
        assert!(outcome.complete && outcome.levels.len() == 3, "{name}: {:?}", outcome.levels);
    }
}

#[test]
fn the_rules_hold_through_any_two_clean_stops_and_switchovers() {
    holds_through_two(|action| matches!(action, Action::Stop(_) | Action::HandOver(_)));
}

#[test]
fn the_rules_hold_through_any_two_crashes() {
    holds_through_two(|action| matches!(action, Action::Crash { .. }));
}

/// Where the rule counts: policy, arbiter, and the state to begin from.
type Place = (&'static str, bool, fn(Setting) -> World);

const BROKEN: [(Broken, Place); 17] = [
    (Broken::InvitesEarly, ("slave_survives", false, Setting::new_pair)),
    (Broken::AnswersEarly, ("slave_survives", false, starts::in_sync)),
    (Broken::StaleServes, ("slave_survives", false, starts::left_behind)),
    (Broken::AloneEarly, ("master_survives", false, starts::in_sync)),
    (Broken::LeadsEarly, ("none", false, starts::both_down)),
    (Broken::CutsCommitted, ("both", false, starts::partition)),
    (Broken::KeepsTail, ("slave_survives", false, starts::both_down)),
    (Broken::ShorterLeads, ("slave_survives", false, starts::taken_over)),
    (Broken::LostSwapCounts, ("both", true, starts::both_down)),
    (Broken::IgnoresVersion, ("both", true, starts::overtaken)),
    (Broken::IgnoresLease, ("both", true, starts::slept)),
    (Broken::EmptyLeads, ("slave_survives", false, Setting::new_pair)),
    (Broken::KeepsClaim, ("slave_survives", false, starts::both_down)),
    (Broken::HandsOverEarly, ("master_survives", false, starts::handing_over)),
    (Broken::LeavesEarly, ("slave_survives", false, starts::in_sync)),
    (Broken::ShrinksUnasked, ("both", true, starts::in_sync)),
    (Broken::TrustsHello, ("slave_survives", false, starts::taken_over)),
];

#[test]
fn a_rule_taken_out_is_noticed() {
    let mut missed = Vec::new();
    for (rule, (name, arbiter, start)) in BROKEN {
        let world = start(Setting::new(name, arbiter));
        broken::set(Some(rule));
        let outcome =
            explore(&[Start { name: "the start", world }], Bounds::states(states_max(120_000)));
        broken::set(None);
        let Some(violation) = outcome.violation else {
            report(name, arbiter, &outcome);
            missed.push(rule);
            continue;
        };
        eprintln!("{rule:?}, {name}: after {} states: {}", outcome.states, violation.rule);
        violation.course.iter().for_each(|line| eprintln!("    {line}"));
    }
    assert_eq!(missed, [], "not noticed");
}
