//! What `ssl://` addresses are connected with: files in, a `rustls` configuration out.

use crate::{Address, Error, options::TlsOptions};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// How one address is to be connected to.
#[derive(Clone)]
pub(crate) struct Secure {
    pub(crate) config: Arc<ClientConfig>,
    /// Whom the broker's certificate must be for.
    pub(crate) name: ServerName<'static>,
}

impl Secure {
    /// None: the address is in clear.
    ///
    /// # Errors
    /// [`Error::Tls`]: a file that is missing or does not hold what it should.
    pub(crate) fn load(address: &Address, options: &TlsOptions) -> Result<Option<Self>, Error> {
        if !address.tls {
            return Ok(None);
        }
        let own = |own: &Option<String>, other: &Option<PathBuf>| {
            own.as_ref().map(PathBuf::from).or_else(|| other.clone())
        };
        let Some(ca_file) = own(&address.ca_file, &options.ca_file) else {
            let text = "name the authorities that sign the broker's certificate: cacertfile";
            return Err(Error::Tls(text.into()));
        };
        let mut roots = RootCertStore::empty();
        for root in certificates(&ca_file)? {
            roots.add(root).map_err(|error| wrong(&ca_file, &error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Tls(error.to_string()))?
            .with_root_certificates(roots);
        let certificate_file = own(&address.certificate_file, &options.certificate_file);
        let key_file = own(&address.key_file, &options.key_file);
        let config = match (certificate_file, key_file) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let read = PrivateKeyDer::from_pem_file(&key).map_err(|e| wrong(&key, &e))?;
                builder
                    .with_client_auth_cert(certificates(&certificate)?, read)
                    .map_err(|error| wrong(&certificate, &error))?
            }
            _ => return Err(Error::Tls("certfile and keyfile go together".into())),
        };
        let name = address.server_name.as_ref().unwrap_or(&address.host).clone();
        let name = ServerName::try_from(name)
            .map_err(|_| Error::Tls(format!("no certificate can be for '{}'", address.host)))?;
        Ok(Some(Self { config: Arc::new(config), name }))
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| wrong(file, &error))?;
    if found.is_empty() {
        return Err(wrong(file, &"no certificate in it"));
    }
    Ok(found)
}

fn wrong(file: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Tls(format!("{}: {error}", file.display()))
}
