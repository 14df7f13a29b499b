use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};

use super::*;
use crate::{
    compile::{Inputs, compile},
    fit,
    keys::Fetched,
    spec::load,
};

/// 2030-01-01, for certificates from 2020 to 2040.
const NOW: i64 = 1_893_456_000;

/// A directory of its own for a test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("sluice-{name}-{}", std::process::id()));
        _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Writes a self-signed certificate for `names`, from 2020 to `year`.
    fn pair(&self, name: &str, names: &[&str], year: i32) {
        let (cert, key) = made(names, year);
        self.write(&format!("{name}.pem"), cert);
        self.write(&format!("{name}.key"), key);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn params(names: &[&str], year: i32) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year, 1, 1);
    params
}

fn made(names: &[&str], year: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = params(names, year).self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = params(&[], 2040);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn crl(issuer: &Issuer<'_, KeyPair>) -> rcgen::CertificateRevocationList {
    CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2040, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![],
        key_identifier_method: KeyIdMethod::Sha256,
    }
    .signed_by(issuer)
    .unwrap()
}

/// A spec with these certificates, and these `tls` of an upstream.
fn spec(directory: &Path, certificates: &str, upstream: &str) -> Spec {
    let text = format!(
        "version: 1\nlisteners: [{{name: a, listen: ':1', tls: {{certificates: [{certificates}]}}}}]\n\
         upstreams: [{{name: u, targets: ['1.2.3.4:5'], tls: {{{upstream}}}}}]\n\
         routes: [{{name: r, upstream: u}}]"
    );
    let loaded = load("t.yaml", &text);
    loaded.spec.unwrap_or_else(|| panic!("{:#?}", loaded.problems)).rooted(directory)
}

const UNVERIFIED: &str = "verify: false";

#[track_caller]
fn says(spec: &Spec, expected: &[&str]) -> (Material, Vec<Fault>) {
    let (material, faults) = Material::load(spec, None, NOW);
    let found: Vec<String> =
        faults.iter().map(|fault| format!("{} {}", fault.field, fault.code)).collect();
    assert_eq!(found, expected, "{faults:#?}");
    (material, faults)
}

#[test]
fn names_come_from_the_leaf_unless_the_spec_has_some() {
    let dir = Scratch::new("names");
    dir.pair("a", &["API.example.com", "*.example.com"], 2040);
    let spec = spec(
        &dir.0,
        "{cert: a.pem, key: a.key}, {cert: a.pem, key: a.key, names: [x.example.com, b.other.com]}",
        UNVERIFIED,
    );
    let (material, faults) =
        says(&spec, &["listeners[0].tls.certificates[1].names[1] uncovered-name"]);
    assert!(faults[0].message.contains("it is for api.example.com, *.example.com"), "{faults:?}");
    let certificates = &spec.listeners[0].tls.as_ref().unwrap().certificates;
    assert_eq!(material.names(&certificates[0]), ["api.example.com", "*.example.com"]);
    assert_eq!(material.names(&certificates[1]), ["x.example.com", "b.other.com"]);
    let leaf = &material.pair(&certificates[0].cert, &certificates[0].key).unwrap().leaf;
    assert_eq!(leaf.key_type, "ECDSA P-256");
    assert_eq!((leaf.not_before, leaf.not_after), (1_577_836_800, 2_208_988_800));
}

#[test]
fn every_way_a_pair_can_be_wrong() {
    let dir = Scratch::new("pairs");
    dir.pair("a", &["a.com"], 2040);
    dir.pair("b", &["b.com"], 2040);
    let read = |name: &str| fs::read_to_string(dir.0.join(name)).unwrap();
    let judge = |cert: &str, key: &str, expected: &str, part: &str| {
        let spec = spec(&dir.0, &format!("{{cert: {cert}, key: {key}}}"), UNVERIFIED);
        let place = format!("listeners[0].tls.certificates[0].{expected}");
        let (material, faults) = says(&spec, &[&place]);
        assert!(faults[0].message.contains(part), "{faults:?}");
        assert_eq!(faults[0].severity, Severity::Error);
        assert_eq!(material, Material::default());
        // Whatever went wrong, no part of a key is told.
        let secret: String = read("a.key").lines().nth(1).unwrap().into();
        assert!(!format!("{faults:?}").contains(&secret));
    };
    judge("none.pem", "a.key", "cert unreadable-file", "does not exist");
    judge("a.pem", "none.key", "key unreadable-file", "does not exist");
    judge(".", "a.key", "cert unreadable-file", "not a regular file");
    judge("a.pem", "b.key", "key key-mismatch", "does not belong to the certificate");
    judge("a.key", "a.pem", "cert bad-certificate", "swapped?");
    judge("a.pem", "a.pem", "key bad-key", "swapped?");
    dir.write("empty.pem", "");
    judge("empty.pem", "a.key", "cert bad-certificate", "-----BEGIN CERTIFICATE-----");
    judge("a.pem", "empty.pem", "key bad-key", "no private key");
    let half = |name: &str| read(name)[..read(name).len() / 2].to_owned();
    dir.write("half.pem", half("a.pem"));
    dir.write("half.key", half("a.key"));
    judge("half.pem", "a.key", "cert bad-certificate", "cut short");
    judge("a.pem", "half.key", "key bad-key", "cut short");
    dir.write("junk.pem", "-----BEGIN CERTIFICATE-----\n*%\n-----END CERTIFICATE-----\n");
    judge("junk.pem", "a.key", "cert bad-certificate", "not base64");
    dir.write("other.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    judge("other.pem", "a.key", "cert bad-certificate", "no certificate that can be read");
    dir.write(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    judge("a.pem", "locked.key", "key bad-key", "openssl pkey");
    dir.write("odd.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    judge("a.pem", "odd.key", "key bad-key", "of a kind that is not supported");
    dir.write("large.pem", vec![b'x'; (1 << 20) + 1]);
    judge("large.pem", "a.key", "cert unreadable-file", "larger than");
    dir.write("a.der", [0x30, 0x82]);
    judge("a.der", "a.key", "cert bad-certificate", "openssl x509 -inform der");
}

#[test]
fn what_a_person_should_look_at_is_a_warning() {
    let dir = Scratch::new("warnings");
    dir.pair("old", &["old.com"], 2029);
    dir.pair("good", &["good.com"], 2040);
    fs::set_permissions(dir.0.join("good.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let spec =
        spec(&dir.0, "{cert: old.pem, key: old.key}, {cert: good.pem, key: good.key}", UNVERIFIED);
    let at = "listeners[0].tls.certificates";
    let (_, faults) = says(
        &spec,
        &[&format!("{at}[0].cert expired-certificate"), &format!("{at}[1].key exposed-key")],
    );
    assert!(faults.iter().all(|fault| fault.severity == Severity::Warning));
    assert!(faults[0].message.contains("2029-01-01"), "{faults:?}");
    let early = Material::load(&spec, None, 0).1;
    assert_eq!(early[0].code, "early-certificate");
    let soon = Material::load(&spec, None, 1_861_920_000 - 86_400).1;
    assert_eq!(soon[0].code, "expiring-certificate");
}

#[test]
fn names_must_be_known_and_apart() {
    let dir = Scratch::new("apart");
    dir.pair("a", &["a.com", "b.com"], 2040);
    dir.pair("b", &["b.com"], 2040);
    dir.pair("none", &[], 2040);
    let judge = |certificates: &str, expected: &[&str]| {
        says(&spec(&dir.0, certificates, UNVERIFIED), expected);
    };
    let at = "listeners[0].tls.certificates";
    judge("{cert: none.pem, key: none.key}", &[&format!("{at}[0].cert no-names")]);
    let clash = [format!("{at}[1].cert duplicate-server-name")];
    judge("{cert: a.pem, key: a.key}, {cert: b.pem, key: b.key}", &[&clash[0]]);
    judge("{cert: a.pem, key: a.key, names: [a.com]}, {cert: b.pem, key: b.key}", &[]);
}

#[test]
fn issuers_and_revocation_lists() {
    let dir = Scratch::new("issuers");
    dir.pair("a", &["a.com"], 2040);
    let (ca, other) = (authority(), authority());
    dir.write("ca.pem", format!("{}{}", ca.pem(), other.pem()));
    let list = crl(&ca);
    dir.write("ca.crl", list.pem().unwrap());
    dir.write("ca.crl.der", list.der());
    let judge = |ca: &str, crl: &str, expected: &[&str]| {
        let auth = format!("client_auth: {{mode: request, ca: {ca}, crl: {crl}}}");
        let spec = spec(&dir.0, &format!("{{cert: a.pem, key: a.key, {auth}}}"), UNVERIFIED);
        let (material, _) = says(&spec, expected);
        let file = |name| Some(dir.0.join(name).to_string_lossy().into_owned());
        material.trust(&TrustFiles { ca: file(ca), crl: file(crl) }).cloned()
    };
    let pem = judge("ca.pem", "ca.crl", &[]).unwrap();
    assert_eq!((pem.roots.len(), pem.crls.len()), (2, 1));
    assert_eq!(judge("ca.pem", "ca.crl.der", &[]), Some(pem));
    let at = "listeners[0].tls.certificates[0].client_auth";
    assert_eq!(judge("ca.pem", "a.pem", &[&format!("{at}.crl bad-crl")]), None);
    assert_eq!(judge("a.key", "ca.crl", &[&format!("{at}.ca bad-certificate")]), None);
    judge(
        "none",
        "gone",
        &[&format!("{at}.ca unreadable-file"), &format!("{at}.crl unreadable-file")],
    );
}

#[test]
fn what_cannot_be_read_keeps_what_was() {
    let dir = Scratch::new("keeps");
    dir.pair("a", &["a.com"], 2040);
    dir.pair("b", &["b.com"], 2040);
    let spec = spec(&dir.0, "{cert: a.pem, key: a.key}, {cert: b.pem, key: b.key}", UNVERIFIED);
    let (before, faults) = Material::load(&spec, None, NOW);
    assert_eq!(faults, []);
    // The certificate is renewed, its key not yet; the other pair is renewed whole.
    let (cert, key) = made(&["a.com"], 2040);
    dir.write("a.pem", cert);
    dir.pair("b", &["b.com"], 2039);
    let (between, faults) = Material::load(&spec, Some(&before), NOW);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].code, "key-mismatch");
    let certificates = &spec.listeners[0].tls.as_ref().unwrap().certificates;
    let pair = |material: &Material, at: usize| {
        let one = &certificates[at];
        material.pair(&one.cert, &one.key).unwrap().certificate.clone()
    };
    assert_eq!(pair(&between, 0), pair(&before, 0));
    assert_ne!(pair(&between, 1), pair(&before, 1));
    dir.write("a.key", key);
    let (after, faults) = Material::load(&spec, Some(&between), NOW);
    assert_eq!(faults, []);
    assert_ne!(pair(&after, 0), pair(&before, 0));
}

#[test]
fn equal_material_is_in_the_snapshot_once_and_can_be_recovered() {
    let dir = Scratch::new("once");
    dir.pair("a", &["a.com"], 2040);
    fs::copy(dir.0.join("a.pem"), dir.0.join("copy.pem")).unwrap();
    fs::copy(dir.0.join("a.key"), dir.0.join("copy.key")).unwrap();
    dir.write("ca.pem", authority().pem());
    let spec = spec(
        &dir.0,
        "{cert: a.pem, key: a.key, client_auth: {mode: require, ca: ca.pem}}, \
         {cert: copy.pem, key: copy.key, names: [b.com]}",
        "ca: ca.pem, cert: a.pem, key: a.key, server_name: up.internal",
    );
    let (material, _) = says(&spec, &["listeners[0].tls.certificates[1].names[0] uncovered-name"]);
    let keys = [flat::TicketKey { name: [1; 16], secret: [2; 32] }];
    let inputs = Inputs {
        resolve: &|_| Vec::new(),
        material: &material,
        ticket_keys: &keys,
        cookie_keys: &[],
        fetched: &Fetched::default(),
        before: None,
    };
    let snapshot = compile(&spec, 1, 1, &inputs);
    assert_eq!((snapshot.certificates.len(), snapshot.trust.len()), (1, 1));
    assert_eq!(snapshot.ticket_keys, keys);
    let tls = snapshot.listeners[0].tls.as_ref().unwrap();
    assert_eq!(tls.sites[0].names, ["a.com"]);
    assert_eq!(tls.sites[0].client_auth, Some(flat::ClientAuth { trust: 0, required: true }));
    assert_eq!(tls.default_site, Some(0));
    assert_eq!(
        snapshot.upstreams[0].tls,
        Some(flat::UpstreamTls {
            min_version: flat::TlsVersion::V12,
            trust: Some(0),
            server_name: Some("up.internal".into()),
            identity: Some(0),
        })
    );
    assert_eq!(Snapshot::decode(&snapshot.encode()).as_ref(), Ok(&snapshot));
    assert_eq!(Material::recover(&spec, &snapshot), material);
    // Nothing that is printed has the key.
    assert!(!format!("{material:?}{snapshot:?}").contains(
        &format!("{:?}", &snapshot.certificates[0].key[..20]).trim_matches(['[', ']']).to_owned()
    ));
}

#[test]
fn missing_material_makes_a_snapshot_that_is_refused() {
    let dir = Scratch::new("missing");
    let none = Material::default();
    let refused = |certificates: &str, upstream: &str| {
        let spec = spec(&dir.0, certificates, upstream);
        let bytes = fit::plain(&spec, &none).encode();
        Snapshot::decode(&bytes).unwrap_err().field
    };
    assert_eq!(refused("{cert: a, key: b}", UNVERIFIED), "site.certificate");
    dir.pair("a", &["a.com"], 2040);
    let spec = spec(&dir.0, "{cert: a.pem, key: a.key}", "");
    let (material, _) = Material::load(&spec, None, NOW);
    let mut half = material.clone();
    half.trust.clear();
    let bytes = fit::plain(&spec, &half).encode();
    assert_eq!(Snapshot::decode(&bytes).unwrap_err().field, "upstream.tls.trust");
}

#[test]
fn a_swapped_link_is_another_stamp() {
    let dir = Scratch::new("links");
    // As Kubernetes lays out a secret: the file is behind a link that is replaced.
    for version in ["1", "2"] {
        fs::create_dir(dir.0.join(version)).unwrap();
        dir.write(&format!("{version}/tls.crt"), "same");
    }
    let link = |version: &str| {
        _ = fs::remove_file(dir.0.join("data"));
        std::os::unix::fs::symlink(version, dir.0.join("data")).unwrap();
    };
    link("1");
    std::os::unix::fs::symlink("data/tls.crt", dir.0.join("tls.crt")).unwrap();
    let file = dir.0.join("tls.crt").to_string_lossy().into_owned();
    let look = || stamps([file.as_str()].into_iter());
    let first = look();
    assert!(first[&file].is_some());
    assert_eq!(look(), first);
    link("2");
    assert_ne!(look(), first);
    fs::remove_file(dir.0.join("data")).unwrap();
    assert_eq!(look()[&file], None);
}

#[test]
fn problems_stand_at_the_field_of_the_file() {
    let dir = Scratch::new("places");
    let text = "version: 1\nlisteners:\n- name: a\n  listen: ':1'\n  tls:\n    certificates:\n    \
                - cert: gone.pem\n      key: gone.key\n\
                upstreams: [{name: u, targets: ['1.2.3.4:5']}]\nroutes: [{name: r, upstream: u}]\n";
    let checked = fit::load("t.yaml", text.as_bytes(), Some(&dir.0), |_| Ok(()));
    assert!(checked.whole.is_none() && checked.spec.is_some());
    let said = checked.problems[0].to_string();
    let file = dir.0.join("gone.pem");
    let expected = format!(
        "t.yaml:7:13: error[unreadable-file]: listeners[0].tls.certificates[0].cert: {} does not exist",
        file.display()
    );
    assert!(said.starts_with(&expected), "{said}");
    let remote = fit::load("t.yaml", text.as_bytes(), None, |_| Ok(()));
    let codes: Vec<&str> = remote.problems.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["relative-file", "relative-file"]);
}
