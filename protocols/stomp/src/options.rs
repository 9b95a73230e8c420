//! What a session is told about itself: dialect, limits, defaults.

use understudy_model::Text;

/// How destinations are read: as the users of one broker or of the other write them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    #[default]
    Rabbitmq,
    Activemq,
}

#[derive(Clone, Debug)]
pub struct StompOptions {
    /// What CONNECTED calls the server: `Understudy/x.y.z`.
    pub server: String,
    /// For a CONNECT without `host`.
    pub default_vhost: Text,
    pub dialect: Dialect,
    /// Longest body.
    pub message_bytes_max: usize,
    /// Longest head: command and headers together.
    pub header_bytes_max: usize,
    pub headers_max: usize,
    /// The longest interval offered, in each direction in which the client wants heart-beats; it
    /// gets a shorter one if it asks for it. 0: none.
    pub heartbeat_ms: u64,
    /// So many agreed intervals of silence end the connection.
    pub heartbeat_grace: f64,
    /// From the first byte to CONNECTED.
    pub handshake_timeout_ms: u64,
    /// Of a SUBSCRIBE that names none; 0: no limit.
    pub prefetch_default: u32,
    /// Of a SEND without a `persistent` header.
    pub default_persistent: bool,
    pub subscriptions_max: usize,
    /// Open transactions, and what they may hold together.
    pub transactions_max: usize,
    pub transaction_bytes_max: usize,
}

impl Default for StompOptions {
    fn default() -> Self {
        Self {
            server: concat!("Understudy/", env!("CARGO_PKG_VERSION")).to_owned(),
            default_vhost: Text::from_static("/"),
            dialect: Dialect::Rabbitmq,
            message_bytes_max: 16 * 1024 * 1024,
            header_bytes_max: 64 * 1024,
            headers_max: 256,
            heartbeat_ms: 10_000,
            heartbeat_grace: 2.0,
            handshake_timeout_ms: 10_000,
            prefetch_default: 1_000,
            default_persistent: false,
            subscriptions_max: 1_000,
            transactions_max: 64,
            transaction_bytes_max: 64 * 1024 * 1024,
        }
    }
}
