//! TLS to the database, as `sslmode` has it.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

/// Whom to take for the database. Roots come from the file, or from the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// `prefer`, `require`: against who only listens on the way.
    Anyone,
    /// `verify-ca`: whoever a root vouches for.
    Chain(Option<PathBuf>),
    /// `verify-full`: for its name.
    Name(Option<PathBuf>),
}

impl Trust {
    /// # Errors
    /// The roots cannot be had, and why.
    pub fn client(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let lax = |chain| {
            let verifier = Arc::new(Lax { provider: Arc::clone(&provider), chain });
            builder.clone().dangerous().with_custom_certificate_verifier(verifier)
        };
        Ok(match self {
            Trust::Anyone => lax(None).with_no_client_auth(),
            Trust::Chain(file) => {
                let roots = Arc::new(roots(file.as_ref())?);
                let chain =
                    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
                let chain = chain.build().map_err(|error| error.to_string())?;
                lax(Some(chain)).with_no_client_auth()
            }
            Trust::Name(file) => {
                builder.with_root_certificates(roots(file.as_ref())?).with_no_client_auth()
            }
        })
    }
}

fn roots(file: Option<&PathBuf>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            let wrong = |why: String| format!("sslrootcert {}: {why}", file.display());
            let certificates = CertificateDer::pem_file_iter(file);
            for one in certificates.map_err(|error| wrong(error.to_string()))? {
                let one = one.map_err(|error| wrong(error.to_string()))?;
                roots.add(one).map_err(|error| wrong(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("there is no certificate in it".into()));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err("this system has no root certificates; name some by sslrootcert".into());
            }
        }
    }
    Ok(roots)
}

/// Asks for less than a certificate for the name.
#[derive(Debug)]
struct Lax {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lax {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: all else is well.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
