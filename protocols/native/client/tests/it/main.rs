//! The client against a small broker in this process, which speaks with the real session.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod addresses;
mod failover;
mod server;
mod working;
