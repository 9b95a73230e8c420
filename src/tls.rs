//! TLS for client listeners: files in, a `rustls` configuration out, made anew on SIGHUP.

use crate::config::TlsSettings;
use anyhow::{Context, bail};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// What new connections are served with. Those that are there keep what they began with.
#[derive(Clone)]
pub struct Tls {
    settings: TlsSettings,
    current: watch::Sender<Arc<ServerConfig>>,
}

impl Tls {
    /// # Errors
    /// A file that is missing, or does not hold what it should; the error names it.
    pub fn new(settings: &TlsSettings) -> anyhow::Result<Self> {
        let (current, _) = watch::channel(Arc::new(load(settings)?));
        Ok(Self { settings: settings.clone(), current })
    }

    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.borrow().clone()
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// As [`Self::new`]; then everything stays as it was.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.current.send_replace(Arc::new(load(&self.settings)?));
        Ok(())
    }

    /// The user that a client's certificate stands for.
    pub fn user_of(&self, certificate: &CertificateDer<'_>) -> Option<String> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let subject = parsed.subject();
        if self.settings.login_from == LOGIN_FROM_COMMON_NAME {
            return subject.iter_common_name().next()?.as_str().ok().map(str::to_owned);
        }
        distinguished_name(subject)
    }
}

pub(crate) const LOGIN_FROM_COMMON_NAME: &str = "common_name";

/// As RFC 4514 writes it, the last part first: `O=client,CN=orders`.
fn distinguished_name(subject: &x509_parser::x509::X509Name<'_>) -> Option<String> {
    let registry = x509_parser::objects::oid_registry();
    let parts = subject.iter_attributes().map(|attribute| {
        let name = x509_parser::objects::oid2abbrev(attribute.attr_type(), registry).ok()?;
        Some(format!("{name}={}", attribute.as_str().ok()?))
    });
    let mut parts = parts.collect::<Option<Vec<_>>>()?;
    parts.reverse();
    Some(parts.join(",")).filter(|name| !name.is_empty())
}

fn load(settings: &TlsSettings) -> anyhow::Result<ServerConfig> {
    let chain = certificates("tls.certificate_file", &settings.certificate_file)?;
    let key = private_key(&settings.key_file)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(&settings.min_version))?;
    let builder = if settings.client_ca_file.is_empty() {
        builder.with_no_client_auth()
    } else {
        let roots = Arc::new(roots("tls.client_ca_file", &settings.client_ca_file)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let verifier = if settings.require_client_certificate {
            verifier
        } else {
            verifier.allow_unauthenticated()
        };
        builder.with_client_cert_verifier(verifier.build().context("tls.client_ca_file")?)
    };
    builder.with_single_cert(chain, key).context("tls.key_file does not fit the certificate")
}

pub(crate) fn private_key(file: &str) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|error| anyhow::anyhow!("{error}"))
        .with_context(|| format!("tls.key_file: {file}"))
}

/// The authorities in the file that the setting `key` names.
pub(crate) fn roots(key: &str, file: &str) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in certificates(key, file)? {
        roots.add(root).with_context(|| format!("{key}: {file}"))?;
    }
    Ok(roots)
}

pub(crate) fn certificates(key: &str, file: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(Path::new(file))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| anyhow::anyhow!("{error}"))
        .with_context(|| format!("{key}: {file}"))?;
    if found.is_empty() {
        bail!("{key}: {file} holds no certificate");
    }
    Ok(found)
}

pub(crate) fn versions(min_version: &str) -> &'static [&'static SupportedProtocolVersion] {
    const NEWEST: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
    if min_version == "1.3" { NEWEST } else { rustls::ALL_VERSIONS }
}
