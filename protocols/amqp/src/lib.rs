//! AMQP 0-9-1: bytes of a client in, requests to the broker out, and effects back into bytes.
//!
//! Reading order: `session` (phases of a connection), `handshake`, `connection` (frames to
//! channels), `publish` and `deliver` (the hot paths), then one file for each group of methods.

mod basic;
mod channel;
mod codec;
mod connection;
mod consume;
mod deliver;
mod fault;
mod frame;
mod handshake;
mod login;
mod method;
mod options;
mod publish;
mod reply;
mod reply_to;
mod session;
mod settle;
#[cfg(test)]
mod tests;
mod topology;
mod transaction;
mod unacked;

pub use options::AmqpOptions;
pub use session::AmqpSession;
