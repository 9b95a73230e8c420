//! Two nodes in a small world: stories, and chaos from a seed.

mod arbiter;
mod arbiter_stories;
mod catch_up;
mod chaos;
mod checks;
mod disk;
mod failure_table;
mod fetch;
mod left_out;
mod operator;
mod resuming;
mod search;
mod stories;
mod upgrade;
mod world;
mod writer;

pub(crate) use search::broken;
