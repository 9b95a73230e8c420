//! The STOMP 1.0, 1.1 and 1.2 frontend: sans-io, see [`StompSession`].
//!
//! Destinations map onto the broker's queues and exchanges as RabbitMQ's do, so that a queue is
//! the same one for AMQP and STOMP clients; headers that only ActiveMQ knows are taken where
//! they do not contradict. `docs/message-mapping.md` has the table of headers.

mod codec;
mod destination;
mod error;
mod heartbeat;
mod mapping;
mod options;
mod queue;
mod session;
mod subscription;
mod transaction;

#[doc(hidden)]
pub use codec::count_frames;
pub use options::{Dialect, StompOptions};
pub use session::StompSession;
