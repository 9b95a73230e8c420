//! Understudy's native protocol: frames, their codec, and the server's session, all sans-io.
//!
//! [`Frame`] and [`Decoder`] serve both sides; [`NativeSession`] is the broker's. The words are
//! explained in `docs/native-protocol.md`.

mod codec;
mod field;
mod frame;
mod numbers;
mod session;

pub use codec::{
    Decoder, FRAME_BYTES_MAX_BEFORE_LOGIN, LIST_ITEMS_MAX, NAME_BYTES_MAX, PREAMBLE,
    PREAMBLE_BYTES, PREAMBLE_MAGIC, VERSION, WireError,
};
pub use field::PublishFlags;
pub use frame::*;
pub use session::{NativeOptions, NativeSession};

/// What a client needs of the model, so that it need not know the model itself.
pub use understudy_model::{
    AckMode, Malformed, Properties, Table, Text, Value, WriteBuffer, check_table_depth,
};
