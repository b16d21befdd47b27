//! TLS on the connections of clients.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::{self, ServerConfig, crypto};

/// A certificate with its chain, and the matching private key.
#[derive(Clone)]
pub struct Tls {
    pub(crate) acceptor: TlsAcceptor,
}

/// Why TLS cannot be set up with the given files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The chain is not valid PEM.
    #[error("the certificates cannot be read")]
    Certificates(#[source] pem::Error),
    /// There is no certificate.
    #[error("there is no certificate, expected BEGIN CERTIFICATE blocks")]
    NoCertificate,
    /// The key is not valid PEM.
    #[error("the private key cannot be read")]
    Key(#[source] pem::Error),
    /// Key and certificate do not match, or are of an unsupported kind.
    #[error("the certificate cannot be used with the key")]
    Unusable(#[source] rustls::Error),
}

impl Tls {
    /// Reads the contents of two PEM files: the server's certificate followed by its chain, and its
    /// private key.
    ///
    /// # Errors
    /// [`TlsError`] says which file is at fault.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(TlsError::Certificates)?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Key)?;
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?;
        let config = config.with_no_client_auth().with_single_cert(chain, key);
        let mut config = config.map_err(TlsError::Unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}
