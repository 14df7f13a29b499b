//! What a person wants to know of a certificate.

use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, public_key::PublicKey,
    x509::X509Name,
};

use crate::spec::scalars;

/// Most names that are taken from a certificate.
const MAX_NAMES: usize = 1_000;

/// The leaf of a chain. Times in seconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    pub subject: String,
    pub issuer: String,
    /// Its DNS names, in lower case, as far as they can be server names.
    pub names: Vec<String>,
    pub not_before: i64,
    pub not_after: i64,
    /// `ECDSA P-256`, `RSA 2048`, …
    pub key_type: String,
}

impl Leaf {
    /// # Errors
    /// The bytes are no certificate.
    pub fn read(der: &[u8]) -> Result<Leaf, String> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| format!("it holds no certificate that can be read ({error})"))?;
        let mut names: Vec<String> = Vec::new();
        if let Ok(Some(extension)) = certificate.subject_alternative_name() {
            for name in extension.value.general_names.iter().take(MAX_NAMES) {
                let GeneralName::DNSName(name) = name else { continue };
                if let Ok(name) = scalars::server_pattern(name)
                    && !names.contains(&name)
                {
                    names.push(name);
                }
            }
        }
        let validity = certificate.validity();
        Ok(Leaf {
            subject: shown(certificate.subject()),
            issuer: shown(certificate.issuer()),
            names,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            key_type: key_type(&certificate),
        })
    }

    /// Whether the certificate is good for `name`, which may be a wildcard itself.
    pub fn covers(&self, name: &str) -> bool {
        let above = name.split_once('.').map(|(_, above)| format!("*.{above}"));
        self.names.iter().any(|own| own == name || Some(own) == above.as_ref())
    }
}

/// Without control characters, so that it can be printed.
fn shown(name: &X509Name<'_>) -> String {
    let text: String = name.to_string().chars().filter(|c| !c.is_control()).take(300).collect();
    if text.is_empty() { "-".into() } else { text }
}

fn key_type(certificate: &X509Certificate<'_>) -> String {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", point.key_size()),
        Ok(_) => "other".into(),
        Err(_) => match certificate.public_key().algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => "Ed25519".into(),
            _ => "unknown".into(),
        },
    }
}
