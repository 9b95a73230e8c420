//! What an operator may set for AMQP connections.

/// The same for all connections, but for [`Self::connection_seed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqpOptions {
    /// Announced to clients, which parse it and switch features on by it.
    pub product_version: String,
    /// Announced as `cluster_name`.
    pub node_name: String,
    /// Longest frame in bytes, at least 4096.
    pub frame_max: u32,
    /// Highest channel number.
    pub channel_max: u16,
    /// Proposed heartbeat interval in seconds, 0: none. The client decides.
    pub heartbeat_s: u16,
    pub message_bytes_max: u64,
    /// What the connection may hold in open transactions and in bodies that are not complete, all
    /// channels together.
    pub held_bytes_max: u64,
    pub consumers_per_channel_max: usize,
    /// From the connection's start to `connection.open`.
    pub handshake_timeout_ms: u64,
    /// How long a client may take to answer `connection.close`, and the broker to commit what a
    /// client asked before its own.
    pub close_timeout_ms: u64,
    /// How long a delivery may be unacked before its channel is closed; 0: for ever.
    pub consumer_timeout_ms: u64,
    /// Makes the consumer tags of this connection differ from those of others.
    pub connection_seed: u64,
}

impl Default for AmqpOptions {
    fn default() -> Self {
        Self {
            product_version: "0.1.0".to_owned(),
            node_name: "understudy".to_owned(),
            frame_max: 131_072,
            channel_max: 2_047,
            heartbeat_s: 60,
            message_bytes_max: 16 * 1024 * 1024,
            held_bytes_max: 128 * 1024 * 1024,
            consumers_per_channel_max: 10_000,
            handshake_timeout_ms: 10_000,
            close_timeout_ms: 10_000,
            consumer_timeout_ms: 0,
            connection_seed: 0,
        }
    }
}
