//! What a client connects with: files in, a `rustls` configuration out.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// Who signs the broker's certificate. Needed.
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate, for brokers that ask for one.
    pub certificate_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

/// Which file cannot be used, and why; or which one is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError(String);

impl std::fmt::Display for FileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FileError {}

/// How one broker is to be connected to.
#[derive(Clone, Debug)]
pub struct Secure {
    config: Arc<ClientConfig>,
    /// Whom the broker's certificate must be for.
    name: ServerName<'static>,
}

impl Secure {
    /// `name`: whom the broker's certificate must be for, a host name or an IP address.
    ///
    /// # Errors
    /// A file that is missing or does not hold what it should; a name that none can have.
    pub fn load(files: &ClientFiles, name: &str) -> Result<Self, FileError> {
        let Some(ca_file) = &files.ca_file else {
            let text = "name the authorities that sign the broker's certificate: cacertfile";
            return Err(FileError(text.into()));
        };
        let mut roots = RootCertStore::empty();
        for root in certificates(ca_file)? {
            roots.add(root).map_err(|error| wrong(ca_file, &error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| FileError(error.to_string()))?
            .with_root_certificates(roots);
        let config = match (&files.certificate_file, &files.key_file) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let read = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, &e))?;
                builder
                    .with_client_auth_cert(certificates(certificate)?, read)
                    .map_err(|error| wrong(certificate, &error))?
            }
            _ => return Err(FileError("certfile and keyfile go together".into())),
        };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| FileError(format!("no certificate can be for '{name}'")))?;
        Ok(Self { config: Arc::new(config), name })
    }

    /// The client's side of a new connection.
    ///
    /// # Errors
    /// The configuration allows none.
    pub fn connection(&self) -> Result<ClientConnection, rustls::Error> {
        ClientConnection::new(self.config.clone(), self.name.clone())
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let found =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| wrong(file, &error))?;
    if found.is_empty() {
        return Err(wrong(file, &"no certificate in it"));
    }
    Ok(found)
}

fn wrong(file: &Path, error: &dyn std::fmt::Display) -> FileError {
    FileError(format!("{}: {error}", file.display()))
}
