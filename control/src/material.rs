//! What the files of a spec hold: certificates with their keys, issuers, revocation lists, secrets,
//! descriptions of APIs.
//!
//! It is loaded beside the spec and handed to [`crate::compile`], so that compiling stays a
//! function of its arguments. Loading again keeps what cannot be read now, so that a file that is
//! half written changes nothing.

mod apis;
mod file;
mod keyring;
mod leaf;
pub(crate) mod openapi;
pub mod outside;
pub mod protos;
mod recover;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use contract::snapshot::{self as flat, Snapshot};

pub use apis::indexes;
pub use file::{Stamp, issuers, stamps, system_roots};
pub use keyring::seal;
pub use leaf::Leaf;
pub use openapi::Described;
pub use outside::allow as allow_commands;

use crate::spec::{AdminTls, Certificate, Places, Problem, Severity, Spec, UpstreamTls};

/// A certificate this close to its end is warned of, in seconds.
const SOON: i64 = 7 * 86_400;

/// What the files of a spec hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Material {
    /// By the files of the chain and of the key.
    pairs: BTreeMap<(String, String), Arc<Pair>>,
    trust: BTreeMap<TrustFiles, Arc<flat::Trust>>,
    keyring: keyring::Keyring,
    /// Secrets that have a stand-in here, by their keys.
    pending: BTreeSet<String>,
    apis: apis::Apis,
    protos: protos::Protos,
}

/// A certificate chain and its key.
#[derive(PartialEq, Eq)]
pub struct Pair {
    pub certificate: flat::Certificate,
    pub leaf: Leaf,
}

impl fmt::Debug for Pair {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("leaf", &self.leaf).finish_non_exhaustive()
    }
}

/// Where a [`flat::Trust`] comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrustFiles {
    /// `None`: the system's roots.
    pub ca: Option<String>,
    pub crl: Option<String>,
}

/// Something wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub severity: Severity,
    pub code: &'static str,
    /// The spec's field that names the file.
    pub field: String,
    /// The value of that field.
    pub value: String,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.field, self.value, self.message)
    }
}

impl Fault {
    /// The same as a problem of the spec in `file`.
    pub fn problem(self, file: &str, places: &Places) -> Problem {
        let mark = places.get(&self.field);
        Problem {
            severity: self.severity,
            file: file.into(),
            line: mark.line,
            column: mark.column,
            field: self.field,
            value: Some(self.value),
            message: self.message,
            code: self.code,
            related: None,
        }
    }
}

impl Material {
    /// Reads every file of `spec`, whose names are absolute. What cannot be read or used is a fault,
    /// and is taken from `before` if that has it.
    pub fn load(spec: &Spec, before: Option<&Material>, now: i64) -> (Material, Vec<Fault>) {
        let mut load = Load { material: Material::default(), faults: Vec::new(), before, now };
        for (at, listener) in spec.listeners.iter().enumerate() {
            let Some(tls) = &listener.tls else { continue };
            for (n, one) in tls.certificates.iter().enumerate() {
                load.site(&format!("listeners[{at}].tls.certificates[{n}]"), one);
            }
            load.names(&format!("listeners[{at}].tls.certificates"), &tls.certificates);
        }
        for (at, upstream) in spec.upstreams.iter().enumerate() {
            let Some(tls) = &upstream.tls else { continue };
            load.upstream(&format!("upstreams[{at}].tls"), tls);
        }
        if let Some(tls) = &spec.admin.tls {
            load.admin(tls);
        }
        load.keyring(spec);
        load.apis(spec);
        load.protos(spec);
        (load.material, load.faults)
    }

    /// What `snapshot`, compiled from `spec`, was made of. For a control process that starts while a
    /// file cannot be read: the engine serves with the old one, and so goes on.
    pub fn recover(spec: &Spec, snapshot: &Snapshot) -> Material {
        let mut material = Material::default();
        for (listener, flat) in spec.listeners.iter().zip(&snapshot.listeners) {
            let (Some(tls), Some(flat)) = (&listener.tls, &flat.tls) else { continue };
            for (one, site) in tls.certificates.iter().zip(&flat.sites) {
                material.recover_pair(snapshot, &one.cert, &one.key, site.certificate);
                if let (Some(auth), Some(flat)) = (&one.client_auth, site.client_auth) {
                    let (ca, crl) = (Some(auth.ca.clone()), auth.crl.clone());
                    material.recover_trust(snapshot, TrustFiles { ca, crl }, flat.trust);
                }
            }
        }
        for (upstream, flat) in spec.upstreams.iter().zip(&snapshot.upstreams) {
            let (Some(tls), Some(flat)) = (&upstream.tls, &flat.tls) else { continue };
            if let Some(trust) = flat.trust {
                let files = TrustFiles { ca: tls.ca.clone(), crl: None };
                material.recover_trust(snapshot, files, trust);
            }
            if let (Some(cert), Some(key), Some(at)) = (&tls.cert, &tls.key, flat.identity) {
                material.recover_pair(snapshot, cert, key, at);
            }
        }
        material.recover_keyring(spec, snapshot);
        material.recover_apis(spec, snapshot);
        material.recover_protos(spec, snapshot);
        material
    }

    fn recover_pair(&mut self, snapshot: &Snapshot, cert: &str, key: &str, at: u32) {
        let Some(certificate) = snapshot.certificates.get(at as usize) else { return };
        let leaf = certificate.chain.first().and_then(|der| Leaf::read(der).ok());
        let pair = Pair { certificate: certificate.clone(), leaf: leaf.unwrap_or_default() };
        self.pairs.insert((cert.into(), key.into()), Arc::new(pair));
    }

    fn recover_trust(&mut self, snapshot: &Snapshot, files: TrustFiles, at: u32) {
        if let Some(trust) = snapshot.trust.get(at as usize) {
            self.trust.insert(files, Arc::new(trust.clone()));
        }
    }

    /// Whether a secret has a stand-in, as nothing has been run for it yet: it is good for a check, and
    /// must never be published.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub fn pair(&self, cert: &str, key: &str) -> Option<&Pair> {
        self.pairs.get(&(cert.to_owned(), key.to_owned())).map(Arc::as_ref)
    }

    pub fn trust(&self, files: &TrustFiles) -> Option<&flat::Trust> {
        self.trust.get(files).map(Arc::as_ref)
    }

    /// The server names of a certificate of the spec: its own, or those of its leaf.
    pub fn names(&self, one: &Certificate) -> Vec<String> {
        match (one.names.as_slice(), self.pair(&one.cert, &one.key)) {
            ([], Some(pair)) => pair.leaf.names.clone(),
            (names, _) => names.to_vec(),
        }
    }
}

struct Load<'a> {
    material: Material,
    faults: Vec<Fault>,
    before: Option<&'a Material>,
    now: i64,
}

impl Load<'_> {
    fn fault(
        &mut self,
        severity: Severity,
        code: &'static str,
        field: String,
        value: &str,
        message: String,
    ) {
        self.faults.push(Fault { severity, code, field, value: value.into(), message });
    }

    /// Reads a pair once; `false`: it cannot be used.
    fn pair(&mut self, path: &str, cert: &str, key: &str) -> bool {
        let files = (cert.to_owned(), key.to_owned());
        if self.material.pairs.contains_key(&files) {
            return true;
        }
        match file::pair(cert, key) {
            Ok(file::ReadPair { chain, key: secret, leaf, exposed }) => {
                self.validity(path, cert, &leaf);
                if exposed {
                    let message = format!(
                        "anybody on this machine may use this private key: chmod 600 {key}"
                    );
                    let field = format!("{path}.key");
                    self.fault(Severity::Warning, "exposed-key", field, key, message);
                }
                let certificate = flat::Certificate { chain, key: secret };
                self.material.pairs.insert(files, Arc::new(Pair { certificate, leaf }));
                true
            }
            Err(bad) => {
                let (name, value) = if bad.key { ("key", key) } else { ("cert", cert) };
                let field = format!("{path}.{name}");
                self.fault(Severity::Error, bad.code, field, value, bad.message);
                if let Some(pair) = self.before.and_then(|before| before.pairs.get(&files)) {
                    self.material.pairs.insert(files, Arc::clone(pair));
                }
                false
            }
        }
    }

    fn validity(&mut self, path: &str, cert: &str, leaf: &Leaf) {
        let day = |at: i64| crate::records::date(at.max(0).unsigned_abs());
        let (code, message) = if leaf.not_after < self.now {
            ("expired-certificate", format!("the certificate ended on {}", day(leaf.not_after)))
        } else if leaf.not_before > self.now {
            let since = day(leaf.not_before);
            ("early-certificate", format!("the certificate is not valid before {since}"))
        } else if leaf.not_after < self.now.saturating_add(SOON) {
            ("expiring-certificate", format!("the certificate ends on {}", day(leaf.not_after)))
        } else {
            return;
        };
        self.fault(Severity::Warning, code, format!("{path}.cert"), cert, message);
    }

    fn trust(&mut self, path: &str, ca: Option<&str>, crl: Option<&str>) {
        let files = TrustFiles { ca: ca.map(Into::into), crl: crl.map(Into::into) };
        if self.material.trust.contains_key(&files) {
            return;
        }
        let before = self.before.and_then(|before| before.trust.get(&files)).cloned();
        let roots = match (ca, &before) {
            (Some(ca), _) => file::issuers(ca).map_err(|(code, message)| (code, "ca", ca, message)),
            // The system's roots are read when a spec is taken, not each time a file changes.
            (None, Some(before)) => Ok(before.roots.clone()),
            (None, None) => {
                file::system_roots().map_err(|message| ("no-system-roots", "", "{}", message))
            }
        };
        let crls = crl.map_or(Ok(Vec::new()), |crl| {
            file::revocations(crl).map_err(|(code, message)| (code, "crl", crl, message))
        });
        let mut whole = true;
        for (code, name, value, message) in [roots.as_ref().err(), crls.as_ref().err()]
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
        {
            let field = if name.is_empty() { path.to_owned() } else { format!("{path}.{name}") };
            self.fault(Severity::Error, code, field, value, message);
            whole = false;
        }
        let trust = match (roots, crls) {
            (Ok(roots), Ok(crls)) if whole => Some(Arc::new(flat::Trust { roots, crls })),
            _ => before,
        };
        if let Some(trust) = trust {
            self.material.trust.insert(files, trust);
        }
    }

    fn site(&mut self, path: &str, one: &Certificate) {
        if self.pair(path, &one.cert, &one.key)
            && let Some(pair) = self.material.pairs.get(&(one.cert.clone(), one.key.clone()))
        {
            let pair = Arc::clone(pair);
            for (n, name) in
                one.names.iter().enumerate().filter(|(_, name)| !pair.leaf.covers(name))
            {
                let message = format!(
                    "the certificate in {} is not for `{name}`, so clients will refuse it; it is \
                     for {}",
                    one.cert,
                    listed(&pair.leaf.names)
                );
                let field = format!("{path}.names[{n}]");
                self.fault(Severity::Warning, "uncovered-name", field, name, message);
            }
            if one.names.is_empty() && pair.leaf.names.is_empty() {
                let message = "the certificate has no DNS names; say which it is for: names: [api.example.com]";
                let (field, value) = (format!("{path}.cert"), &one.cert);
                self.fault(Severity::Error, "no-names", field, value, message.into());
            }
        }
        if let Some(auth) = &one.client_auth {
            self.trust(&format!("{path}.client_auth"), Some(&auth.ca), auth.crl.as_deref());
        }
    }

    /// Names that certificates bring themselves must not meet those of others.
    fn names(&mut self, path: &str, certificates: &[Certificate]) {
        let mut first: HashMap<String, usize> = HashMap::new();
        for (at, one) in certificates.iter().enumerate() {
            for name in self.material.names(one) {
                let Some(&other) = first.get(&name) else {
                    first.insert(name, at);
                    continue;
                };
                let written = |at: usize| {
                    certificates.get(at).is_some_and(|one: &Certificate| !one.names.is_empty())
                };
                // Those that both are written in the spec have been judged with it.
                if written(at) && written(other) {
                    continue;
                }
                let message = format!(
                    "its name `{name}` is also one of {path}[{other}]; say with `names` which \
                     certificate is for which"
                );
                let field = format!("{path}[{at}].cert");
                self.fault(Severity::Error, "duplicate-server-name", field, &one.cert, message);
            }
        }
    }

    fn admin(&mut self, tls: &AdminTls) {
        let before = self.faults.len();
        self.pair("admin.tls", &tls.certificate, &tls.key);
        if let Some(ca) = &tls.client_ca {
            self.trust("admin.tls", Some(ca), None);
        }
        // These files have longer names here than elsewhere.
        for fault in self.faults.iter_mut().skip(before) {
            match fault.field.as_str() {
                "admin.tls.cert" => fault.field = "admin.tls.certificate".into(),
                "admin.tls.ca" => fault.field = "admin.tls.client_ca".into(),
                _ => {}
            }
        }
    }

    fn upstream(&mut self, path: &str, tls: &UpstreamTls) {
        if tls.verify {
            self.trust(path, tls.ca.as_deref(), None);
        }
        if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
            self.pair(path, cert, key);
        }
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "no DNS name".into(),
        names if names.len() <= 5 => names.join(", "),
        names => format!("{} and {} more", names[..5].join(", "), names.len() - 5),
    }
}

#[cfg(test)]
mod tests;
