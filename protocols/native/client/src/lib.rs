//! Client of the Understudy message broker.
//!
//! ```no_run
//! # async fn example() -> Result<(), understudy_client::Error> {
//! use understudy_client::{Client, Message, QueueOptions, SubscribeOptions};
//!
//! let client =
//!     Client::connect("failover:(tcp://a:61616,tcp://b:61616)?randomize=false").await?;
//! client.declare_queue("orders", QueueOptions::default()).await?;
//! client.publish(Message::to_queue("orders", "one tea")).await?;
//!
//! let mut orders = client.subscribe("orders", SubscribeOptions::default()).await?;
//! while let Some(delivery) = orders.next().await {
//!     println!("{:?}", delivery.body());
//!     delivery.settle();
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # When the connection is lost
//! The client connects again through its list of addresses, at first without delay: in a pair,
//! the other node takes over. Then, without the caller's doing:
//! - publishes without an answer are sent again with their sequence numbers, and the broker drops
//!   those it has: a publish's future survives, and its message is stored once;
//! - subscriptions are made again. Deliveries of the former connection are void: settling them
//!   yields [`Error::Stale`] or `false`, and the broker delivers them again;
//! - requests without an answer are sent again, where repeating them does no harm: what declares
//!   and binds. The others yield [`Error::ConnectionLost`];
//! - of a transaction without an answer the broker is asked whether it has it: see
//!   [`Transaction::commit`].
//!
//! At a planned switchover the master says where the next one is, and the client goes there at
//! once, even if it is not in its list (`updateURIsSupported=false` forbids that).
//!
//! Nothing is declared again: exclusive queues are gone with the connection that made them.
//!
//! # TLS
//! `ssl://host:port?cacertfile=/etc/understudy/ca.pem`, or [`ConnectOptions::tls`]; with a
//! certificate of its own and an empty user the client is who the certificate says.
//!
//! # Runtime
//! A client is a task of the tokio runtime in which it was connected, which needs its drivers of
//! I/O and time. When the runtime ends, everything that waits yields [`Error::Closed`].
//!
//! # Dropping futures
//! Every future of this crate may be dropped. What was handed over to the background task
//! happens nevertheless; only the answer is lost. [`Subscription::next`] loses no delivery.

#![deny(missing_docs, clippy::missing_errors_doc, rustdoc::broken_intra_doc_links)]
// A library does not panic in its user's program.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]
// A client library has clocks, sockets and randomness; the bans are for the broker's core.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod address;
mod backoff;
mod client;
mod command;
mod connection;
mod engine;
mod error;
mod message;
mod options;
mod stream;
mod subscription;
mod task;
mod tls;
mod transaction;
mod unconfirmed;

pub use address::{Address, Failover};
pub use client::{Client, Confirmation, Confirmed, ConnectionState};
pub use error::Error;
pub use message::Message;
pub use options::{
    Binding, ConnectOptions, DeleteQueueOptions, ExchangeOptions, QueueInfo, QueueOptions,
    SubscribeOptions, TlsOptions,
};
pub use subscription::{Delivery, Subscription};
pub use transaction::{Committed, Transaction};
pub use understudy_native::{AckMode, Properties, Table, Text, Value};

/// What most functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
