//! Search through all courses of events from some starting states, in the order of how often they
//! depart from the calm one: a fault, a command, an early deadline, or something that is put off.

use super::actions::Action;
use super::print::Printer;
use super::rules::Sight;
use super::world::World;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

pub(super) struct Start {
    pub(super) name: &'static str,
    pub(super) world: World,
}

/// A rule that does not hold in a state that can be reached.
pub(super) struct Violation {
    pub(super) rule: String,
    /// What happened before, in words.
    pub(super) course: Vec<String>,
}

/// How far a search goes.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) states_max: usize,
    pub(super) departures_max: usize,
    /// Which departures are looked at.
    pub(super) departs: fn(Action) -> bool,
}

impl Bounds {
    pub(super) fn states(states_max: usize) -> Self {
        Self { states_max, departures_max: usize::MAX, departs: |_| true }
    }
}

pub(super) struct Outcome {
    /// Nothing within the bounds is left out.
    pub(super) complete: bool,
    pub(super) states: usize,
    pub(super) steps: usize,
    /// States by the departures that lead there; all but the last are complete.
    pub(super) levels: Vec<usize>,
    /// Steps that have shown each of [`Sight::NAMES`].
    pub(super) sights: Vec<usize>,
    pub(super) violation: Option<Violation>,
}

impl Outcome {
    pub(super) fn saw(&self, sight: Sight) -> bool {
        self.sights[sight.index()] > 0
    }
}

/// Prints are mixed already.
#[derive(Clone, Copy, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, print: u64) {
        self.0 = print;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

impl BuildHasher for AsItIs {
    type Hasher = Self;
    fn build_hasher(&self) -> Self {
        *self
    }
}

/// How a state was reached.
#[derive(Clone, Copy)]
struct Step {
    from: u32,
    action: Option<Action>,
}

/// A step that is still to be made. States share the world that they come from, so what waits costs
/// little.
struct Pending {
    world: Rc<World>,
    step: Step,
}

struct Search<'a> {
    starts: &'a [Start],
    bounds: Bounds,
    #[expect(clippy::disallowed_types, reason = "asked for single prints only")]
    known: std::collections::HashSet<u64, AsItIs>,
    steps: Vec<Step>,
    /// By departures from the calm course.
    queues: Vec<VecDeque<Pending>>,
    outcome: Outcome,
}

/// Looks at states within the bounds: first those on the calm courses, then those that one
/// departure leads to, and so on.
pub(super) fn explore(starts: &[Start], bounds: Bounds) -> Outcome {
    let outcome = Outcome {
        complete: false,
        states: 0,
        steps: 0,
        levels: Vec::new(),
        sights: vec![0; Sight::NAMES.len()],
        violation: None,
    };
    let mut search = Search {
        starts,
        bounds,
        known: Default::default(),
        steps: Vec::new(),
        queues: vec![VecDeque::new()],
        outcome,
    };
    for (number, start) in starts.iter().enumerate() {
        let step = Step { from: number as u32, action: None };
        search.queues[0].push_back(Pending { world: Rc::new(start.world.clone()), step });
    }
    search.run();
    search.outcome
}

impl Search<'_> {
    fn run(&mut self) {
        let mut at = 0;
        while at < self.queues.len() {
            self.outcome.levels.push(0);
            while let Some(pending) = self.queues[at].pop_front() {
                if self.outcome.states >= self.bounds.states_max || !self.make(at, pending) {
                    return;
                }
            }
            at += 1;
        }
        self.outcome.complete = true;
    }

    /// False: a rule is broken.
    fn make(&mut self, at: usize, Pending { world, step }: Pending) -> bool {
        let made =
            step.action.map_or_else(|| Ok((*world).clone()), |action| stepped(&world, action));
        let rule = match made {
            Ok(mut next) => {
                self.outcome.steps += 1;
                let sights = self.outcome.sights.iter_mut().enumerate();
                sights.for_each(|(at, count)| *count += (next.sights.0 >> at & 1) as usize);
                match next.violation.take() {
                    None => {
                        self.arrive(at, next, step);
                        return true;
                    }
                    Some(rule) => rule,
                }
            }
            Err(panic) => panic,
        };
        let last = self.steps.len() as u32;
        self.steps.push(step);
        let course = course(self.starts, &self.steps, last);
        self.outcome.violation = Some(Violation { rule, course });
        false
    }

    fn arrive(&mut self, at: usize, mut world: World, step: Step) {
        if !self.known.insert(world.print()) {
            return;
        }
        self.outcome.states += 1;
        self.outcome.levels[at] += 1;
        let from = self.steps.len() as u32;
        self.steps.push(step);
        let world = Rc::new(world);
        for (action, cost) in world.choices() {
            let level = at + usize::from(cost);
            let is_left_out = cost > 0 && !(self.bounds.departs)(action);
            if is_left_out || level > self.bounds.departures_max {
                continue;
            }
            if self.queues.len() <= level {
                self.queues.resize_with(level + 1, VecDeque::new);
            }
            let step = Step { from, action: Some(action) };
            self.queues[level].push_back(Pending { world: Rc::clone(&world), step });
        }
    }
}

fn stepped(world: &World, action: Action) -> Result<World, String> {
    catch_unwind(AssertUnwindSafe(|| {
        let mut next = world.clone();
        next.apply(action);
        next
    }))
    .map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.unwrap_or_else(|| "a panic".to_owned())
    })
}

/// Runs the way to a state once more and has it told.
fn course(starts: &[Start], steps: &[Step], to: u32) -> Vec<String> {
    let mut actions = Vec::new();
    let mut at = to;
    while let Step { from, action: Some(action), .. } = steps[at as usize] {
        actions.push(action);
        at = from;
    }
    let start = &starts[at as usize];
    let mut world = start.world.clone();
    world.words = Some(vec![format!("From: {}", start.name)]);
    for action in actions.into_iter().rev() {
        let before = world.words.clone();
        match stepped(&world, action) {
            Ok(next) => world = next,
            Err(panic) => {
                world.words = before;
                world.say(|| format!("{action}: {panic}"));
            }
        }
    }
    let words = world.words.unwrap_or_default();
    words.into_iter().filter(|line| !line.is_empty()).collect()
}

#[test]
fn prints_depend_on_each_word_and_on_their_order() {
    let prints = [&[1u64, 2][..], &[2, 1], &[1], &[1, 2, 0]].map(|words| Printer::of(&words));
    for (at, print) in prints.iter().enumerate() {
        assert!(!prints[..at].contains(print));
    }
}
