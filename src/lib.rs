//! Understudy: a message broker that runs as a safe pair on two machines. The shells and their
//! wiring; the deterministic parts live in crates of their own, see ARCHITECTURE.md.

// The shells are where clocks, threads, files and hash maps belong; the core crates stay banned.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod admin;
pub mod arbiter;
pub mod auth;
pub mod boot;
mod cache;
pub mod cli;
pub mod clock;
mod commit_times;
pub mod config;
pub mod connection;
mod damage;
pub mod driver;
pub mod handle;
pub mod inbox;
mod inflight;
mod lag;
pub mod listener;
pub mod log_writer;
pub mod mailbox;
pub mod node;
pub mod ownership;
pub mod peer;
mod process;
pub mod reader;
pub mod scrub;
pub mod server;
pub mod space;
pub mod stall;
pub mod state_writer;
mod throttle;
pub mod tls;
pub mod trace;
pub mod transport;
mod upkeep;
pub mod web_socket;
