//! The native protocol from outside: every frame, conversations, garbage.
#![allow(clippy::unwrap_used, reason = "tests")]

mod codec;
mod garbage;
mod samples;
mod session;
