//! One established link: a reader and a writer.

use super::secure::Socket;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// The largest frame: one group with the largest message, and some.
const FRAME_BYTES_MAX: usize = 768 << 20;
const HEADER_BYTES: usize = 8;
const READ_BYTES: usize = 256 * 1024;
/// A buffer is filled up to this rest before a new one is begun. Frames are slices of it and may be
/// kept for long, so a buffer with one small frame in it would be a waste.
const READ_BYTES_MIN: usize = 16 * 1024;
/// A peer that takes nothing at all for so long is not there any more.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const FRAMES_PER_WRITE: usize = 64;

/// Dropping it closes the link.
pub(super) struct LinkHandle {
    frames: mpsc::UnboundedSender<Vec<Bytes>>,
    reader: tokio::task::AbortHandle,
    writer: Option<tokio::task::JoinHandle<()>>,
}

impl LinkHandle {
    /// Closes the link; what comes back ends when everything that was queued is written.
    pub(super) fn finish(mut self) -> Option<tokio::task::JoinHandle<()>> {
        self.writer.take()
    }

    pub(super) fn send(&self, pieces: Vec<Bytes>) {
        let _ = self.frames.send(pieces);
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

pub(super) fn start(
    socket: Socket,
    received: impl Fn(Bytes) + Send + 'static,
    ended: impl Fn(String) + Clone + Send + 'static,
) -> LinkHandle {
    match socket {
        Socket::Clear(socket) => {
            let (read, write) = socket.into_split();
            serve(read, write, received, ended)
        }
        Socket::Tls(stream) => {
            let (read, write) = tokio::io::split(*stream);
            serve(read, write, received, ended)
        }
    }
}

fn serve(
    read: impl AsyncRead + Unpin + Send + 'static,
    write: impl AsyncWrite + Unpin + Send + 'static,
    received: impl Fn(Bytes) + Send + 'static,
    ended: impl Fn(String) + Clone + Send + 'static,
) -> LinkHandle {
    let (frames, inbox) = mpsc::unbounded_channel();
    let reader_ended = ended.clone();
    let reader = tokio::spawn(async move {
        let why = match read_frames(read, received).await {
            Ok(()) => "closed by the peer".to_owned(),
            Err(error) => error.to_string(),
        };
        reader_ended(why);
    });
    let writer = tokio::spawn(async move {
        if let Err(error) = write_frames(write, inbox).await {
            ended(error.to_string());
        }
    });
    LinkHandle { frames, reader: reader.abort_handle(), writer: Some(writer) }
}

async fn read_frames(
    mut socket: impl AsyncRead + Unpin,
    received: impl Fn(Bytes),
) -> io::Result<()> {
    let mut input = BytesMut::new();
    loop {
        while let Some(frame) = take_frame(&mut input)? {
            received(frame);
        }
        if input.capacity() - input.len() < READ_BYTES_MIN {
            input.reserve(READ_BYTES);
        }
        if socket.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

fn take_frame(input: &mut BytesMut) -> io::Result<Option<Bytes>> {
    let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
    let Some(mut header) = input.get(..HEADER_BYTES) else { return Ok(None) };
    let (length, crc) = (header.get_u32() as usize, header.get_u32());
    if length > FRAME_BYTES_MAX {
        return Err(invalid("frame too long"));
    }
    if input.len() < HEADER_BYTES + length {
        input.reserve(HEADER_BYTES + length - input.len());
        return Ok(None);
    }
    input.advance(HEADER_BYTES);
    let frame = input.split_to(length).freeze();
    if crc32fast::hash(&frame) != crc {
        return Err(invalid("checksum of a frame"));
    }
    Ok(Some(frame))
}

async fn write_frames(
    mut socket: impl AsyncWrite + Unpin,
    mut inbox: mpsc::UnboundedReceiver<Vec<Bytes>>,
) -> io::Result<()> {
    let mut frames = Vec::new();
    while inbox.recv_many(&mut frames, FRAMES_PER_WRITE).await > 0 {
        let mut whole = VecDeque::new();
        for pieces in frames.drain(..) {
            whole.push_back(frame_header(&pieces));
            whole.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
        }
        write_whole(&mut socket, whole).await?;
    }
    socket.shutdown().await
}

fn frame_header(pieces: &[Bytes]) -> Bytes {
    let mut crc = crc32fast::Hasher::new();
    pieces.iter().for_each(|piece| crc.update(piece));
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let mut header = BytesMut::with_capacity(HEADER_BYTES);
    header.put_u32(length as u32);
    header.put_u32(crc.finalize());
    header.freeze()
}

async fn write_whole(
    socket: &mut (impl AsyncWrite + Unpin),
    mut pieces: VecDeque<Bytes>,
) -> io::Result<()> {
    let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
    while !pieces.is_empty() {
        let slices: Vec<io::IoSlice<'_>> = pieces.iter().map(|p| io::IoSlice::new(p)).collect();
        let write = tokio::time::timeout(WRITE_TIMEOUT, socket.write_vectored(&slices));
        let mut written = write.await.map_err(timed_out)??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(front) = pieces.front_mut() {
            if written < front.len() {
                front.advance(written);
                break;
            }
            written -= front.len();
            pieces.pop_front();
        }
    }
    // TLS may have taken more than the socket has.
    tokio::time::timeout(WRITE_TIMEOUT, socket.flush()).await.map_err(timed_out)?
}
