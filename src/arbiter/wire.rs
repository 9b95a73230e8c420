//! What goes over a connection to the arbiter, behind the proof of the password: one opening from
//! the node, then calls and answers in turn.
//!
//! Frame: `length: u32 · crc32: u32 · payload`, big endian. Opening: the register's name and the
//! node, as texts. The version is in the handshake's greeting.

use crate::peer::Duplex;
use bytes::BytesMut;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use understudy_model::{Malformed, Reader, Text, Writer};

/// Of one frame; the longest holds two names.
const FRAME_BYTES_MAX: usize = 1_024;
pub(super) const NAME_BYTES_MAX: usize = 255;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) register: Text,
    pub(super) node: Text,
}

impl Opening {
    pub(super) fn encode(&self) -> BytesMut {
        let mut out = BytesMut::new();
        let w = &mut Writer(&mut out);
        w.text(&self.register);
        w.text(&self.node);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        let opening = Self { register: r.text()?, node: r.text()? };
        r.finish()?;
        let fits = |text: &Text| !text.is_empty() && text.len() <= NAME_BYTES_MAX;
        if !fits(&opening.register) || !fits(&opening.node) {
            return Err(Malformed("name of a register or node"));
        }
        Ok(opening)
    }
}

pub(super) async fn write_frame(socket: &mut dyn Duplex, payload: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(8 + payload.len());
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(&crc32fast::hash(payload).to_be_bytes());
    frame.extend_from_slice(payload);
    socket.write_all(&frame).await?;
    socket.flush().await
}

pub(super) async fn read_frame(socket: &mut dyn Duplex) -> io::Result<Vec<u8>> {
    let length = socket.read_u32().await? as usize;
    let crc = socket.read_u32().await?;
    if length > FRAME_BYTES_MAX {
        return Err(invalid("frame too long"));
    }
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload).await?;
    if crc32fast::hash(&payload) != crc {
        return Err(invalid("checksum of a frame"));
    }
    Ok(payload)
}

pub(super) fn invalid(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}
