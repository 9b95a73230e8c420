//! Mutual proof of the shared secret.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MAGIC: &[u8; 8] = b"UNDRPAIR";
const VERSION: u16 = 1;
const NONCE_BYTES: usize = 32;
const GREETING_BYTES: usize = 8 + 2 + NONCE_BYTES;
const PROOF_BYTES: usize = 32;

#[derive(Clone)]
pub(super) struct Secret([u8; 32]);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialer = 0,
    Acceptor = 1,
}

impl Secret {
    pub(super) fn new(user: &str, password: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(user);
        hasher.update(b":");
        hasher.update(password);
        Self(hasher.finalize().into())
    }

    /// What `side` has to show for the two nonces; the role keeps a proof from being mirrored.
    fn mac(&self, side: Side, own: &[u8], other: &[u8]) -> io::Result<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).map_err(io::Error::other)?;
        mac.update(&[side as u8]);
        mac.update(own);
        mac.update(other);
        Ok(mac)
    }
}

/// # Errors
/// `PermissionDenied` if the other side does not know the secret, `InvalidData` if it speaks
/// another protocol or version.
pub(super) async fn prove(
    socket: &mut TcpStream,
    secret: &Secret,
    side: Side,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
    let mut greeting = Vec::with_capacity(GREETING_BYTES);
    greeting.extend_from_slice(MAGIC);
    greeting.extend_from_slice(&VERSION.to_be_bytes());
    greeting.extend_from_slice(&nonce);
    socket.write_all(&greeting).await?;
    let mut theirs = [0; GREETING_BYTES];
    socket.read_exact(&mut theirs).await?;
    if theirs[..8] != *MAGIC || theirs[8..10] != VERSION.to_be_bytes() {
        let text = "not a replication link of version 1";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let other_nonce = &theirs[10..];
    let other_side = if side == Side::Dialer { Side::Acceptor } else { Side::Dialer };
    let proof = secret.mac(side, &nonce, other_nonce)?.finalize().into_bytes();
    socket.write_all(&proof).await?;
    let mut shown = [0; PROOF_BYTES];
    // A side that finds our proof wrong hangs up without showing its own.
    let denied = |_| {
        io::Error::new(io::ErrorKind::PermissionDenied, "wrong replication user or password")
    };
    socket.read_exact(&mut shown).await.map_err(denied)?;
    let expected = secret.mac(other_side, other_nonce, &nonce)?;
    expected.verify_slice(&shown).map_err(|_| denied(io::ErrorKind::Other.into()))
}
