//! The sockets that TLS runs over: tokio's, or one of the standard library set to non-blocking.

use std::io::{self, IoSlice, Read, Write};

/// Calls that do not wait: `WouldBlock` where they would have to.
pub trait Socket {
    /// 0: the end.
    ///
    /// # Errors
    /// Those of the system.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Takes a beginning.
    ///
    /// # Errors
    /// Those of the system.
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl Socket for tokio::net::TcpStream {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Self::try_read(self, buffer)
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::try_write_vectored(self, slices)
    }
}

impl Socket for std::net::TcpStream {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut &*self, buffer)
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Write::write_vectored(&mut &*self, slices)
    }
}

/// The socket as `rustls` wants it.
pub(crate) struct Ready<'a, S>(pub(crate) &'a S);

impl<S: Socket> Read for Ready<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl<S: Socket> Write for Ready<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
