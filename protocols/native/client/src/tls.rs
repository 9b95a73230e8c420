//! What `ssl://` addresses are connected with: the address's own files, else those of the options.

use crate::{Address, Error, options::TlsOptions};
use std::path::PathBuf;
use understudy_tls::{ClientFiles, Secure};

/// None: the address is in clear.
///
/// # Errors
/// [`Error::Tls`]: a file that is missing or does not hold what it should.
pub(crate) fn secure(address: &Address, options: &TlsOptions) -> Result<Option<Secure>, Error> {
    if !address.tls {
        return Ok(None);
    }
    let own = |own: &Option<String>, other: &Option<PathBuf>| {
        own.as_ref().map(PathBuf::from).or_else(|| other.clone())
    };
    let files = ClientFiles {
        ca_file: own(&address.ca_file, &options.ca_file),
        certificate_file: own(&address.certificate_file, &options.certificate_file),
        key_file: own(&address.key_file, &options.key_file),
    };
    let name = address.server_name.as_ref().unwrap_or(&address.host);
    let secure = Secure::load(&files, name).map_err(|error| Error::Tls(error.to_string()))?;
    Ok(Some(secure))
}
