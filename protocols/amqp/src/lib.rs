//! NOTE TO THE HELPER WRITING THIS CRATE: at 03:47 the lead overwrote your fault.rs, frame.rs,
//! options.rs and lib.rs by accident and has now removed them. Please write those four files again
//! from your own text, then go on; nobody else touches this folder any more. The lead's server
//! needs `AmqpSession::new(options, now_ms)` and `AmqpOptions: Clone + Default` with the fields
//! product_version, node_name, frame_max, channel_max, heartbeat_s, message_bytes_max (u64),
//! handshake_timeout_ms.
