//! All courses of events in a small world, on the real `Pair`.
//!
//! `world` is a state, `actions` what may happen in it, `rules` what must hold, `print` makes equal
//! states known, `explore` walks through them, `starts` says from where. `broken` takes one rule
//! out of the real code at a time: the search must find that out.

mod actions;
pub(crate) mod broken;
mod explore;
mod print;
mod rules;
mod starts;
mod stories;
mod world;

use broken::Broken;
use explore::{Outcome, Start, explore};
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
    let outcome = explore(&starts::all(Setting::new(name, arbiter)), states_max(70_000));
    report(name, arbiter, &outcome);
    if let Some(violation) = &outcome.violation {
        panic!("{}\n{}", violation.rule, violation.course.join("\n"));
    }
    for sight in ALWAYS.iter().chain(must_see) {
        assert!(outcome.saw(*sight), "{name}: no {}", Sight::NAMES[sight.index()]);
    }
}

/// What comes about under every policy.
const ALWAYS: [Sight; 5] =
    [Sight::BY_TAIL, Sight::BY_COPY, Sight::PROMOTION, Sight::SWITCHOVER, Sight::ELECTION];

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
        let outcome = explore(&[Start { name: "the start", world }], states_max(120_000));
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
