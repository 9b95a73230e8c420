//! Headers of SEND and MESSAGE against AMQP properties. `docs/message-mapping.md` is the table.

mod message;
mod send;
mod text;

pub(crate) use message::{put_browse_end, put_message};
pub(crate) use send::{Sender, properties};

/// Headers that belong to the frame and not to the message, or that MESSAGE sets itself: not
/// taken from a SEND into the message, and from no message into a MESSAGE.
pub(crate) fn is_frame_header(name: &str) -> bool {
    matches!(
        name,
        "destination"
            | "content-length"
            | "receipt"
            | "transaction"
            | "message-id"
            | "subscription"
            | "redelivered"
            | "ack"
    )
}
