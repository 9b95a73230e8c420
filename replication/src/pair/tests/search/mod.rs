//! All courses of events in a small world, on the real `Pair`.
//!
//! `world` is a state, `actions` what may happen in it, `rules` what must hold, `print` makes equal
//! states known, `explore` walks through them, `starts` says from where. `broken` takes one rule out of the
//! real code at a time: the search must find out.

mod actions;
pub(crate) mod broken;
mod explore;
mod print;
mod rules;
mod starts;
mod world;

use explore::explore;
use rules::Sight;
use starts::Setting;

#[test]
fn try_it() {
    for name in ["slave_survives", "master_survives", "none", "both"] {
        for arbiter in [false, true] {
            let setting = Setting::new(name, arbiter);
            let starts = starts::trial(setting);
            let states = option_env!("UNDERSTUDY_MODEL_STATES").and_then(|n| n.parse().ok());
            let outcome = explore(&starts, states.unwrap_or(20_000));
            eprintln!(
                "{name} {arbiter}: {} states, {} steps, departures {}, {:?}",
                outcome.states,
                outcome.steps,
                outcome.departures,
                Sight::NAMES.iter().zip(&outcome.sights).collect::<Vec<_>>()
            );
            if let Some(violation) = outcome.violation {
                eprintln!("VIOLATION {}\n{}", violation.rule, violation.course.join("\n"));
            }
        }
    }
}
