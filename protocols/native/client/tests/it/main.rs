//! The client against a small broker in this process, which speaks with the real session.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod addresses;
mod failover;
mod server;
mod unread;
mod working;

/// A test that would wait for ever fails instead.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, future).await.expect("never came")
}
