//! Frames in and out.

mod decode;
mod escape;
mod frame;
mod write;

pub(crate) use decode::{Decoder, Limits};
pub(crate) use escape::escape;
pub(crate) use frame::{Command, Frame, Headers, Version};
pub(crate) use write::{put_error, put_header, put_receipt};
