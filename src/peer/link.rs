//! One established link: a reader and a writer.

use super::secure::Socket;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
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

/// A frame of at most so many bytes is written by the caller if nothing is queued: two wake-ups
/// less on the way to the peer. Larger ones would hold up the node's turn.
const DIRECT_BYTES_MAX: usize = 16 * 1024;

/// Dropping it closes the link.
pub(super) struct LinkHandle {
    queue: mpsc::UnboundedSender<Queued>,
    /// The socket, without TLS.
    direct: Option<Arc<OwnedWriteHalf>>,
    /// Frames that the writer has not written yet.
    unwritten: Arc<AtomicUsize>,
    reader: tokio::task::AbortHandle,
    writer: Option<tokio::task::JoinHandle<()>>,
}

enum Queued {
    Frame(Vec<Bytes>),
    /// What is left of a frame that the socket did not take at once.
    Rest(VecDeque<Bytes>),
}

impl LinkHandle {
    /// Closes the link; what comes back ends when everything that was queued is written.
    pub(super) fn finish(mut self) -> Option<tokio::task::JoinHandle<()>> {
        self.writer.take()
    }

    /// True if the socket has taken it all.
    pub(super) fn send(&self, pieces: Vec<Bytes>) -> bool {
        // Acquire: what the writer wrote before is in the socket, in front of ours.
        if self.unwritten.load(Ordering::Acquire) > 0 {
            self.enqueue(Queued::Frame(pieces));
            return false;
        }
        let Some(socket) = &self.direct else {
            self.enqueue(Queued::Frame(pieces));
            return false;
        };
        if pieces.iter().map(Bytes::len).sum::<usize>() > DIRECT_BYTES_MAX {
            self.enqueue(Queued::Frame(pieces));
            return false;
        }
        let mut whole = VecDeque::with_capacity(pieces.len() + 1);
        push_frame(&mut whole, pieces);
        // An error shows itself to the writer too, which reports it.
        let written = socket.try_write_vectored(&slices(&whole)).unwrap_or(0);
        drop_written(&mut whole, written);
        let all = whole.is_empty();
        if !all {
            self.enqueue(Queued::Rest(whole));
        }
        all
    }

    fn enqueue(&self, queued: Queued) {
        self.unwritten.fetch_add(1, Ordering::Relaxed);
        let _ = self.queue.send(queued);
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

pub(super) fn start(
    socket: Socket,
    received: impl Fn(Bytes) -> bool + Send + 'static,
    ended: impl Fn(String) + Clone + Send + 'static,
) -> LinkHandle {
    match socket {
        Socket::Clear(socket) => {
            let (read, write) = socket.into_split();
            let write = Arc::new(write);
            serve(read, Shared(write.clone()), Some(write), received, ended)
        }
        Socket::Tls(stream) => {
            let (read, write) = tokio::io::split(*stream);
            serve(read, write, None, received, ended)
        }
    }
}

/// The write half that is written by the caller and by the writer; never by both at a time.
struct Shared(Arc<OwnedWriteHalf>);

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket: &TcpStream = self.0.as_ref().as_ref();
        loop {
            ready!(socket.poll_write_ready(cx))?;
            match socket.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The last of both handles to be dropped shuts the direction down.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn serve(
    read: impl AsyncRead + Unpin + Send + 'static,
    write: impl AsyncWrite + Unpin + Send + 'static,
    direct: Option<Arc<OwnedWriteHalf>>,
    received: impl Fn(Bytes) -> bool + Send + 'static,
    ended: impl Fn(String) + Clone + Send + 'static,
) -> LinkHandle {
    let (queue, inbox) = mpsc::unbounded_channel();
    let unwritten = Arc::new(AtomicUsize::new(0));
    let reader_ended = ended.clone();
    let reader = tokio::spawn(async move {
        let why = match read_frames(read, received).await {
            Ok(()) => "closed by the peer".to_owned(),
            Err(error) => error.to_string(),
        };
        reader_ended(why);
    });
    let count = unwritten.clone();
    let writer = tokio::spawn(async move {
        if let Err(error) = write_frames(write, inbox, &count).await {
            ended(error.to_string());
        }
    });
    LinkHandle { queue, direct, unwritten, reader: reader.abort_handle(), writer: Some(writer) }
}

async fn read_frames(
    mut socket: impl AsyncRead + Unpin,
    received: impl Fn(Bytes) -> bool,
) -> io::Result<()> {
    let mut input = BytesMut::new();
    loop {
        while let Some(frame) = take_frame(&mut input)? {
            if received(frame) {
                tokio::task::yield_now().await;
            }
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
    mut inbox: mpsc::UnboundedReceiver<Queued>,
    unwritten: &AtomicUsize,
) -> io::Result<()> {
    let mut queued = Vec::new();
    while inbox.recv_many(&mut queued, FRAMES_PER_WRITE).await > 0 {
        let taken = queued.len();
        let mut whole = VecDeque::new();
        for queued in queued.drain(..) {
            match queued {
                Queued::Frame(pieces) => push_frame(&mut whole, pieces),
                Queued::Rest(rest) => whole.extend(rest),
            }
        }
        write_whole(&mut socket, whole).await?;
        unwritten.fetch_sub(taken, Ordering::Release);
    }
    socket.shutdown().await
}

fn push_frame(whole: &mut VecDeque<Bytes>, pieces: Vec<Bytes>) {
    whole.push_back(frame_header(&pieces));
    whole.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
}

fn slices(pieces: &VecDeque<Bytes>) -> Vec<io::IoSlice<'_>> {
    pieces.iter().map(|piece| io::IoSlice::new(piece)).collect()
}

fn drop_written(pieces: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(front) = pieces.front_mut() {
        if written < front.len() {
            front.advance(written);
            return;
        }
        written -= front.len();
        pieces.pop_front();
    }
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
        let slices = slices(&pieces);
        let write = tokio::time::timeout(WRITE_TIMEOUT, socket.write_vectored(&slices));
        let written = write.await.map_err(timed_out)??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        drop_written(&mut pieces, written);
    }
    // TLS may have taken more than the socket has.
    tokio::time::timeout(WRITE_TIMEOUT, socket.flush()).await.map_err(timed_out)?
}
