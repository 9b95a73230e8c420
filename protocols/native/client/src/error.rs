//! What can go wrong at a client.

use understudy_native::Text;

/// Why something did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be understood.
    #[error("address: {0}")]
    Address(String),
    /// No address of the list could be connected to in the number of attempts allowed. The client
    /// is closed then, and says so again for whatever is asked of it.
    #[error("no connection: {0}")]
    NoConnection(String),
    /// The connection was lost while the answer was awaited, and asking again could do harm.
    #[error("the connection was lost: {0}")]
    ConnectionLost(String),
    /// The broker refused the request; the code is AMQP's.
    #[error("refused: {code} {text}")]
    Refused {
        /// Reply code of AMQP 0-9-1, e.g. 404.
        code: u16,
        /// The broker's explanation.
        text: Text,
    },
    /// A mandatory message that no queue took.
    #[error("returned: {code} {text}")]
    Returned {
        /// 312, no route.
        code: u16,
        /// The broker's explanation.
        text: Text,
    },
    /// The broker did not take the message: a full queue that rejects.
    #[error("the message was not taken, its queue is full")]
    Nacked,
    /// The delivery belongs to a former connection. The broker delivers it again.
    #[error("the delivery belongs to a former connection")]
    Stale,
    /// The connection was lost before the answer came, and there was no other one to ask by: the
    /// transaction happened as a whole, or not at all, and which is not known.
    #[error("the connection was lost in a commit, its outcome is not known")]
    InDoubt,
    /// There was no connection for as long as the `timeout` option lets each wait. A publish that
    /// was sent before may have been stored.
    #[error("no connection within the timeout")]
    Timeout,
    /// An `ssl://` address whose certificate or key files cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// The broker at an `ssl://` address is not to be trusted, does not trust this client, or does
    /// not speak TLS.
    #[error("no trust: {0}")]
    Untrusted(String),
    /// The program closed the client, or its runtime ended.
    #[error("the client is closed")]
    Closed,
    /// Something that the protocol cannot carry, e.g. a name of more than 255 bytes; or a client
    /// outside of a tokio runtime.
    #[error("{0}")]
    Invalid(&'static str),
    /// The other side does not keep to the protocol.
    #[error("protocol: {0}")]
    Protocol(String),
}

impl Error {
    /// Whether asking again is no help: the broker answered, or is not to be trusted.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Invalid(_) | Self::Untrusted(_))
    }
}
