//! Mutual proof of the shared secret.

use super::secure::Duplex;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Magic = [u8; 8];
const PAIR: &Magic = b"UNDRPAIR";
const ARBITER: &Magic = b"UNDRARBI";
const VERSION: u16 = 1;
const NONCE_BYTES: usize = 32;
const GREETING_BYTES: usize = 8 + 2 + NONCE_BYTES;
const PROOF_BYTES: usize = 32;
/// The acceptor's verdict, before its own proof.
const ACCEPTED: u8 = 1;
const DENIED: u8 = 0;
/// Who guesses passwords waits for each answer.
const DENIAL_PAUSE: Duration = Duration::from_millis(500);

/// What both sides know, and which protocol they speak with it.
#[derive(Clone)]
pub(crate) struct Secret {
    magic: &'static Magic,
    key: [u8; 32],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Dialer = 0,
    Acceptor = 1,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }
}

impl Secret {
    pub(crate) fn of_pair(user: &str, password: &str) -> Self {
        Self::new(PAIR, user, password)
    }

    pub(crate) fn of_arbiter(user: &str, password: &str) -> Self {
        Self::new(ARBITER, user, password)
    }

    fn new(magic: &'static Magic, user: &str, password: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(user);
        hasher.update(b":");
        hasher.update(password);
        Self { magic, key: hasher.finalize().into() }
    }

    /// What `side` has to show for the two nonces; the role keeps a proof from being mirrored.
    fn mac(&self, side: Side, own: &[u8], other: &[u8]) -> io::Result<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).map_err(io::Error::other)?;
        mac.update(&[side as u8]);
        mac.update(own);
        mac.update(other);
        Ok(mac)
    }
}

/// # Errors
/// `PermissionDenied` if the other side does not know the secret, `InvalidData` if it speaks
/// another protocol or version.
pub(crate) async fn prove(socket: &mut dyn Duplex, secret: &Secret, side: Side) -> io::Result<()> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
    let mut greeting = Vec::with_capacity(GREETING_BYTES);
    greeting.extend_from_slice(secret.magic);
    greeting.extend_from_slice(&VERSION.to_be_bytes());
    greeting.extend_from_slice(&nonce);
    socket.write_all(&greeting).await?;
    socket.flush().await?;
    let mut theirs = [0; GREETING_BYTES];
    socket.read_exact(&mut theirs).await?;
    if theirs[..8] != *secret.magic || theirs[8..10] != VERSION.to_be_bytes() {
        let text = "not a link of this kind and version";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let exchange = Exchange { secret, side, nonce: &nonce, other_nonce: &theirs[10..] };
    match side {
        Side::Dialer => {
            socket.write_all(&exchange.own_proof()?).await?;
            socket.flush().await?;
            if socket.read_u8().await? != ACCEPTED {
                return Err(denied());
            }
            exchange.check(socket).await
        }
        // The acceptor shows nothing to a stranger: its proof could be tried against a word list.
        Side::Acceptor => match exchange.check(socket).await {
            Ok(()) => {
                socket.write_u8(ACCEPTED).await?;
                socket.write_all(&exchange.own_proof()?).await?;
                socket.flush().await
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    tokio::time::sleep(DENIAL_PAUSE).await;
                    // So that the dialer can tell a wrong password from a lost connection.
                    socket.write_u8(DENIED).await?;
                    socket.shutdown().await?;
                }
                Err(error)
            }
        },
    }
}

/// What both sides know once the nonces are exchanged.
struct Exchange<'a> {
    secret: &'a Secret,
    side: Side,
    nonce: &'a [u8],
    other_nonce: &'a [u8],
}

impl Exchange<'_> {
    fn own_proof(&self) -> io::Result<[u8; PROOF_BYTES]> {
        let mac = self.secret.mac(self.side, self.nonce, self.other_nonce)?;
        Ok(mac.finalize().into_bytes().into())
    }

    async fn check(&self, socket: &mut dyn Duplex) -> io::Result<()> {
        let mut shown = [0; PROOF_BYTES];
        socket.read_exact(&mut shown).await?;
        let expected = self.secret.mac(self.side.other(), self.other_nonce, self.nonce)?;
        expected.verify_slice(&shown).map_err(|_| denied())
    }
}

fn denied() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "wrong replication user or password")
}
