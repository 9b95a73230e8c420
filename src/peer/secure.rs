//! TLS of the pair's link: the node that dials checks the other's certificate and, if it is
//! mutual, the node that accepts checks the dialer's. The proof of the password comes on top.

use crate::config::{LinkTls, TlsSettings};
use crate::tls::{certificates, private_key, roots, versions};
use anyhow::Context;
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// A connection between the nodes.
pub(crate) enum Socket {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Either kind, for what is not on the path of the data.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

impl Socket {
    pub(crate) fn as_duplex(&mut self) -> &mut dyn Duplex {
        match self {
            Self::Clear(socket) => socket,
            Self::Tls(stream) => stream,
        }
    }
}

/// How new links are made; links that are there keep what they began with.
#[derive(Clone)]
pub struct Security {
    settings: Option<(LinkTls, TlsSettings)>,
    current: watch::Sender<Option<Both>>,
}

/// Each node may dial and be dialed.
#[derive(Clone)]
struct Both {
    accept: Arc<ServerConfig>,
    dial: Arc<ClientConfig>,
}

impl Security {
    /// No TLS. The password's proof keeps strangers off; who listens in can read the messages.
    pub fn clear() -> Self {
        Self { settings: None, current: watch::channel(None).0 }
    }

    /// # Errors
    /// A file that is missing, or does not hold what it should; the error names it.
    pub fn tls(link: &LinkTls, tls: &TlsSettings) -> anyhow::Result<Self> {
        let current = watch::channel(Some(load(link, tls)?)).0;
        Ok(Self { settings: Some((link.clone(), tls.clone())), current })
    }

    pub fn is_clear(&self) -> bool {
        self.settings.is_none()
    }

    /// For a dialer of its own; none without TLS.
    pub(crate) fn dial_config(&self) -> Option<Arc<ClientConfig>> {
        self.current.borrow().as_ref().map(|both| both.dial.clone())
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// As [`Self::tls`]; then everything stays as it was.
    pub fn reload(&self) -> anyhow::Result<()> {
        if let Some((link, tls)) = &self.settings {
            self.current.send_replace(Some(load(link, tls)?));
        }
        Ok(())
    }

    /// # Errors
    /// `InvalidData` with the reason if the other side speaks no TLS or is not trusted.
    pub(crate) async fn accept(&self, socket: TcpStream) -> io::Result<Socket> {
        let current = self.current.borrow().clone();
        let Some(both) = current else { return Ok(Socket::Clear(socket)) };
        let stream = TlsAcceptor::from(both.accept).accept(socket).await?;
        Ok(Socket::Tls(Box::new(stream.into())))
    }

    /// # Errors
    /// As [`Self::accept`]. The certificate must be for the host in `address` (`host:port`).
    pub(crate) async fn dial(&self, address: &str, socket: TcpStream) -> io::Result<Socket> {
        let current = self.current.borrow().clone();
        let Some(both) = current else { return Ok(Socket::Clear(socket)) };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let stream = TlsConnector::from(both.dial).connect(name, socket).await?;
        Ok(Socket::Tls(Box::new(stream.into())))
    }
}

fn load(link: &LinkTls, tls: &TlsSettings) -> anyhow::Result<Both> {
    let chain = certificates("tls.certificate_file", &tls.certificate_file)?;
    let misfit = "tls.key_file does not fit the certificate";
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let authorities = Arc::new(roots(&link.ca_key, &link.ca_file)?);
    let accept = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(&tls.min_version))?;
    let dial = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(&tls.min_version))?
        .with_root_certificates(authorities.clone());
    let (accept, dial) = if link.mutual {
        let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider);
        let dial = dial.with_client_auth_cert(chain.clone(), private_key(&tls.key_file)?);
        let verifier = verifier.build().with_context(|| link.ca_key.clone())?;
        (accept.with_client_cert_verifier(verifier), dial.context(misfit)?)
    } else {
        (accept.with_no_client_auth(), dial.with_no_client_auth())
    };
    let accept = accept.with_single_cert(chain, private_key(&tls.key_file)?).context(misfit)?;
    Ok(Both { accept: Arc::new(accept), dial: Arc::new(dial) })
}
