//! TLS towards services: whom we believe, and which name a certificate has to show.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// Octets of a file with certificates.
const MAX_CA_FILE: u64 = 4 << 20;

/// What it takes to speak TLS with one service.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// Believes the certificates in a file, or those that this machine believes. The service must show one for `name`, a host or an
    /// address. What is wrong is told with the key it is about.
    pub fn new(name: &str, ca_file: Option<&Path>) -> Result<Self, (&'static str, String)> {
        let server = ServerName::try_from(name.to_owned());
        let name =
            server.map_err(|_| ("server-name", format!("{name} can stand in no certificate; write a host's name")))?;
        let roots = match ca_file {
            Some(file) => Arc::new(read(file).map_err(|why| ("ca-file", format!("{} {why}", file.display())))?),
            None => machine_roots().map_err(|why| ("ca-file", why))?,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|err| ("address", err.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Shakes hands.
    pub async fn connect<S>(&self, stream: S) -> std::io::Result<tokio_rustls::client::TlsStream<S>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        self.connector.connect(self.name.clone(), stream).await
    }
}

fn read(file: &Path) -> Result<RootCertStore, String> {
    let size = std::fs::metadata(file).map_err(|err| format!("cannot be read: {err}"))?.len();
    if size > MAX_CA_FILE {
        return Err(format!("has {size} octets; certificates have less than {MAX_CA_FILE}"));
    }
    let certificates = CertificateDer::pem_file_iter(file).map_err(|err| format!("cannot be read: {err}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|err| format!("is no PEM file: {err}"))?;
        roots.add(certificate).map_err(|err| format!("holds a certificate that is none: {err}"))?;
    }
    if roots.is_empty() {
        Err("holds no certificate; it should have -----BEGIN CERTIFICATE-----".into())
    } else {
        Ok(roots)
    }
}

/// Whom this machine believes; read once.
fn machine_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        return Err("this machine has no certificates to believe; install ca-certificates, or name a file here".into());
    }
    Ok(Arc::clone(roots))
}
