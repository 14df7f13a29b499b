//! What it costs to know who calls: the same requests, with the same fields, on a route that asks for
//! nothing and on one that asks for a credential, in one process and in interleaved rounds.

mod config;

use std::error::Error;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use serde::Serialize;

use crate::compare::{self, report::Place, report::Sample};
use crate::load::Plan;
use crate::load::target::{Message, Rotation};
use crate::peer::{self, Found, Peer};
use crate::pin::{self, Pinned};
use crate::tls;
use crate::turns::{self, Turns};

/// Measure what it costs to know who calls: API keys and tokens, remembered and new; certificates.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    turns: Turns,
    /// Only these cases: key, es256, rs256, cold-es256, cold-rs256, mtls
    #[arg(long, value_delimiter = ',', value_parser = Case::parse)]
    case: Vec<Case>,
}

/// Runs what is asked for, and prints it.
pub fn run(args: Args, stop: &AtomicBool) -> Result<(), Box<dyn Error>> {
    let (proxy_cpu, load_cpu, origin_cpu) = compare::layout(&pin::cpus()?)?;
    let turns = args.turns;
    let comparison = Comparison {
        peers: turns.peers(),
        cases: if args.case.is_empty() { CASES.to_vec() } else { args.case },
        rounds: turns.rounds(),
        seconds: turns.seconds(),
        proxy_cpu,
        load_cpu,
        origin_cpu,
    };
    let report = comparison.run(stop)?;
    print!("{}", report.table());
    turns.write(&report)
}

/// A credential that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    ApiKey,
    JwtEs256,
    JwtRs256,
    /// Each token comes once.
    ColdEs256,
    ColdRs256,
    /// Each connection resumes a session that was begun with a client certificate, for one request.
    MtlsResumed,
}

pub const CASES: [Case; 6] = [
    Case::ApiKey,
    Case::JwtEs256,
    Case::JwtRs256,
    Case::ColdEs256,
    Case::ColdRs256,
    Case::MtlsResumed,
];

/// The most that a remembered credential may add to a request, in µs of CPU.
pub const REMEMBERED_US: f64 = 1.0;
/// The most that a token of ES256 may cost when it is seen first, in costs of the bare verification.
pub const COLD_RATIO: f64 = 1.3;
/// The least share of the handshakes that resume a session where that is what is measured: full ones
/// cost several times as much, and would hide what is looked for.
pub const RESUMED_SHARE: f64 = 0.99;
/// Requests a second where each brings a token of its own: RSA signs slowly.
const COLD_RATE: u64 = 2_000;

impl Case {
    pub fn name(self) -> &'static str {
        match self {
            Case::ApiKey => "api key, remembered",
            Case::JwtEs256 => "JWT ES256, remembered",
            Case::JwtRs256 => "JWT RS256, remembered",
            Case::ColdEs256 => "JWT ES256, each one new",
            Case::ColdRs256 => "JWT RS256, each one new",
            Case::MtlsResumed => "mTLS, resumed",
        }
    }

    /// What it is called on the command line.
    fn key(self) -> &'static str {
        match self {
            Case::ColdEs256 => "cold-es256",
            Case::ColdRs256 => "cold-rs256",
            case => case.path(),
        }
    }

    fn parse(key: &str) -> Result<Case, String> {
        CASES.into_iter().find(|case| case.key() == key).ok_or_else(|| {
            let known: Vec<&str> = CASES.iter().map(|case| case.key()).collect();
            format!("unknown case {key:?}: it is one of {}", known.join(", "))
        })
    }

    fn is_cold(self) -> bool {
        matches!(self, Case::ColdEs256 | Case::ColdRs256)
    }

    fn path(self) -> &'static str {
        match self {
            Case::ApiKey => "key",
            Case::JwtEs256 | Case::ColdEs256 => "es256",
            Case::JwtRs256 | Case::ColdRs256 => "rs256",
            Case::MtlsResumed => "mtls",
        }
    }

    fn takes(self, peer: Peer) -> bool {
        match peer {
            Peer::Sluice => true,
            Peer::Envoy => !matches!(self, Case::ApiKey | Case::MtlsResumed),
            // A map of keys, another of certificates' names; its JWT is in the edition that is sold.
            Peer::Nginx => matches!(self, Case::ApiKey | Case::MtlsResumed),
            _ => false,
        }
    }

    /// What a run has to have been like to be one of this case.
    fn check(self, peer: Peer, sample: &Sample) -> Result<(), String> {
        if sample.failures > 0 {
            return Err(format!("{} requests were not answered", sample.failures));
        }
        if self == Case::MtlsResumed && sample.resumed < RESUMED_SHARE {
            return Err(format!(
                "{:.1} % of the handshakes with {peer} resumed a session, where {} % have to: \
                 \"{}\" would measure full ones",
                sample.resumed * 100.0,
                RESUMED_SHARE * 100.0,
                self.name()
            ));
        }
        Ok(())
    }
}

/// What is to be measured, and how long.
pub struct Comparison {
    pub peers: Vec<Found>,
    pub cases: Vec<Case>,
    pub rounds: usize,
    pub seconds: f64,
    pub proxy_cpu: usize,
    pub load_cpu: usize,
    pub origin_cpu: usize,
}

/// One case at one peer.
#[derive(Debug, Serialize)]
pub struct Row {
    pub peer: &'static str,
    pub case: Case,
    /// CPU µs per request without and with the credential asked for, by round.
    pub open_us: Vec<f64>,
    pub asked_us: Vec<f64>,
    /// The share of the handshakes that resumed a session, by run; empty without TLS.
    pub resumed: Vec<f64>,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub place: Place,
    pub rows: Vec<Row>,
    /// CPU µs of one bare verification with *ring*: ES256, RS256.
    pub verify_es256_us: f64,
    pub verify_rs256_us: f64,
}

/// Whoever signs the tokens of a run.
struct Signer {
    es256: EcdsaKeyPair,
    rs256: RsaKeyPair,
    random: SystemRandom,
    api_key: String,
    /// Where the client's certificate comes from, and itself.
    authority: String,
    identity: tls::Identity,
}

/// The consumer's name, also in its certificate.
const CONSUMER: &str = "bench-client";
const ISSUER: &str = "https://issuer.test";
const AUDIENCE: &str = "bench";

impl Signer {
    fn new(rsa_key: &[u8]) -> Result<Signer, Box<dyn Error>> {
        let random = SystemRandom::new();
        let wrong = |what: &'static str| move |_| what;
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(wrong("no randomness"))?;
        let es256 = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random)
            .map_err(|error| error.to_string())?;
        // openssl 3.0 writes PKCS#1 here, others PKCS#8.
        let rs256 = RsaKeyPair::from_pkcs8(rsa_key)
            .or_else(|_| RsaKeyPair::from_der(rsa_key))
            .map_err(|error| error.to_string())?;
        let mut secret = [0; 32];
        random.fill(&mut secret).map_err(wrong("no randomness"))?;
        let api_key = format!("slk_{}", HEXLOWER.encode(&secret));
        let (authority, identity) = tls::authority_for(CONSUMER)?;
        Ok(Signer { es256, rs256, random, api_key, authority, identity })
    }

    /// A token such as providers issue them, good for an hour.
    fn token(&self, case: Case, serial: usize, now_s: u64) -> Result<String, Box<dyn Error>> {
        let (algorithm, kid) = match case.path() {
            "rs256" => ("RS256", "r"),
            _ => ("ES256", "e"),
        };
        let header = format!("{{\"alg\":\"{algorithm}\",\"kid\":\"{kid}\",\"typ\":\"at+jwt\"}}");
        let claims = format!(
            "{{\"iss\":\"{ISSUER}\",\"sub\":\"user-{serial:08}\",\"aud\":\"{AUDIENCE}\",\
             \"client_id\":\"{CONSUMER}\",\"scope\":\"orders:read orders:write profile\",\
             \"jti\":\"{serial:032x}\",\"iat\":{now_s},\"exp\":{}}}",
            now_s + 3_600
        );
        let signed = format!(
            "{}.{}",
            BASE64URL_NOPAD.encode(header.as_bytes()),
            BASE64URL_NOPAD.encode(claims.as_bytes())
        );
        let signature = match algorithm {
            "RS256" => {
                let mut signature = vec![0; self.rs256.public().modulus_len()];
                self.rs256
                    .sign(&RSA_PKCS1_SHA256, &self.random, signed.as_bytes(), &mut signature)
                    .map_err(|_| "the token cannot be signed")?;
                signature
            }
            _ => {
                let signature = self.es256.sign(&self.random, signed.as_bytes());
                signature.map_err(|_| "the token cannot be signed")?.as_ref().to_vec()
            }
        };
        Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
    }

    /// The public keys as a JWK Set (RFC 7517).
    fn jwks(&self) -> String {
        let point = self.es256.public_key().as_ref();
        let (x, y) = (point.get(1..33).unwrap_or_default(), point.get(33..).unwrap_or_default());
        let rsa: ring::rsa::PublicKeyComponents<Vec<u8>> = self.rs256.public().into();
        format!(
            "{{\"keys\":[{{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"e\",\"alg\":\"ES256\",\
             \"use\":\"sig\",\"x\":\"{}\",\"y\":\"{}\"}},{{\"kty\":\"RSA\",\"kid\":\"r\",\
             \"alg\":\"RS256\",\"use\":\"sig\",\"n\":\"{}\",\"e\":\"{}\"}}]}}",
            BASE64URL_NOPAD.encode(x),
            BASE64URL_NOPAD.encode(y),
            BASE64URL_NOPAD.encode(&rsa.n),
            BASE64URL_NOPAD.encode(&rsa.e)
        )
    }

    /// CPU µs of one verification with *ring* alone, of tokens of which each is verified once.
    fn verify_us(&self, case: Case, now_s: u64) -> Result<f64, Box<dyn Error>> {
        const TOKENS: usize = 500;
        let split = |token: String| {
            let (signed, signature) = token.rsplit_once('.').unwrap_or_default();
            (signed.to_owned(), BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap_or_default())
        };
        let tokens: Vec<(String, Vec<u8>)> =
            (0..TOKENS).map(|n| self.token(case, n, now_s).map(split)).collect::<Result<_, _>>()?;
        let mut rounds: Vec<f64> = Vec::new();
        for _ in 0..9 {
            let start = Instant::now();
            for (signed, signature) in &tokens {
                let verified = match case.path() {
                    "rs256" => {
                        let key = self.rs256.public().as_ref();
                        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
                            .verify(signed.as_bytes(), signature)
                    }
                    _ => {
                        let key = self.es256.public_key().as_ref();
                        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
                            .verify(signed.as_bytes(), signature)
                    }
                };
                verified.map_err(|_| "a token of our own does not verify")?;
            }
            rounds.push(start.elapsed().as_secs_f64() * 1e6 / TOKENS as f64);
        }
        Ok(median(&rounds))
    }
}

impl Comparison {
    /// Runs everything; says on stderr what is being done.
    pub fn run(&self, stop: &AtomicBool) -> Result<Report, Box<dyn Error>> {
        pin::raise_open_files();
        pin::this_thread(self.load_cpu)?;
        let directory = std::env::temp_dir().join(format!("sluice-bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let report = self.measure(&directory, stop);
        let _ = std::fs::remove_dir_all(&directory);
        report
    }

    fn measure(&self, directory: &Path, stop: &AtomicBool) -> Result<Report, Box<dyn Error>> {
        let now_s = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
        let rsa = rsa_key(directory)?;
        let signer = Signer::new(&rsa)?;
        let (_origin, origin) = turns::origin(self.origin_cpu, directory, stop)?;
        let server = tls::self_signed()?;
        let files = config::Files::write(directory, &signer.jwks(), &server, &signer.authority)?;
        eprintln!("bare verification");
        let verify_es256_us = signer.verify_us(Case::ColdEs256, now_s)?;
        let verify_rs256_us = signer.verify_us(Case::ColdRs256, now_s)?;
        let mut rows = Vec::new();
        let mut serial = 0;
        for found in &self.peers {
            let cases = self.cases.iter().copied().filter(|case| case.takes(found.peer));
            let mut rows_of: Vec<Row> = cases.map(|case| Row::new(found.peer, case)).collect();
            if rows_of.is_empty() {
                continue;
            }
            let own = directory.join(found.peer.name());
            std::fs::create_dir_all(&own)?;
            for round in 1..=self.rounds {
                // Afresh: what a process has learned would favour the later cases.
                let (mut running, mesh) =
                    self.start(found, &own, origin, &files, &signer.api_key, stop)?;
                for row in &mut rows_of {
                    eprintln!("{} {round}/{}: {}", row.peer, self.rounds, row.case.name());
                    for open in [true, false] {
                        let path = if open { "open" } else { row.case.path() };
                        let url = match row.case {
                            Case::MtlsResumed => format!("https://{mesh}/{path}/bytes/128"),
                            _ => format!("http://{}/{path}/bytes/128", running.address),
                        };
                        let plan = self.plan(&url, row.case, &signer, &mut serial, now_s)?;
                        let sample = compare::measure(&plan, &mut running, stop)?;
                        row.case.check(found.peer, &sample)?;
                        let us = if open { &mut row.open_us } else { &mut row.asked_us };
                        us.push(sample.cpu_us);
                        if plan.target.secure {
                            row.resumed.push(sample.resumed);
                        }
                    }
                }
            }
            rows.append(&mut rows_of);
        }
        Ok(Report { place: self.place(), rows, verify_es256_us, verify_rs256_us })
    }

    fn place(&self) -> Place {
        compare::place(self.proxy_cpu, self.load_cpu, self.origin_cpu, self.rounds, self.seconds)
    }

    /// Starts a gateway. Also returns where it takes clients with certificates.
    fn start(
        &self,
        found: &Found,
        directory: &Path,
        origin: SocketAddr,
        files: &config::Files,
        api_key: &str,
        stop: &AtomicBool,
    ) -> Result<(peer::Running, SocketAddr), Box<dyn Error>> {
        let (listen, mesh, admin) = (pin::free_port()?, pin::free_port()?, pin::free_port()?);
        let setup = config::Setup { listen, mesh, admin, origin: origin.port(), files, api_key };
        let text = match found.peer {
            Peer::Sluice => config::sluice(&setup),
            Peer::Nginx => config::nginx(&setup, directory),
            _ => config::envoy(&setup),
        };
        let arguments = peer::arguments(found.peer, directory, &text)?;
        let name = found.peer.name();
        let mut process =
            Pinned::start(name, self.proxy_cpu, directory, &found.program, arguments)?;
        let address = SocketAddr::from(([127, 0, 0, 1], listen));
        process.wait_for(address, Duration::from_secs(10), stop)?;
        let mesh = SocketAddr::from(([127, 0, 0, 1], mesh));
        Ok((peer::Running { address, process: Some(process) }, mesh))
    }

    fn plan(
        &self,
        url: &str,
        case: Case,
        signer: &Signer,
        serial: &mut usize,
        now_s: u64,
    ) -> Result<Plan, Box<dyn Error>> {
        let duration = Duration::from_secs_f64(self.seconds);
        let warmup = Duration::from_secs(1).min(duration);
        let mut message = Message::default();
        let mut rate = None;
        let mut client = tls::Client::new(tls::Trust::Anybody);
        if case == Case::ApiKey {
            message.headers.push(format!("X-API-Key: {}", signer.api_key));
        } else if case == Case::MtlsResumed {
            (client.version, client.equal_work) = (Some(tls::Version::Tls13), true);
            client.identity = Some(signer.identity.clone());
        } else if case.is_cold() {
            rate = Some(COLD_RATE);
            // Some more than there is time for.
            let wanted = (COLD_RATE as f64 * (duration + warmup).as_secs_f64() * 1.2) as usize;
            let mut values = Vec::with_capacity(wanted);
            for _ in 0..wanted {
                *serial += 1;
                values.push(format!("Bearer {}", signer.token(case, *serial, now_s)?));
            }
            message.rotation = Some(Arc::new(Rotation::new("Authorization", values)));
        } else {
            message
                .headers
                .push(format!("Authorization: Bearer {}", signer.token(case, 0, now_s)?));
        }
        Ok(Plan {
            message,
            tls: client,
            server_name: Some(tls::NAME.to_owned()),
            fresh: case == Case::MtlsResumed,
            rate,
            warmup,
            duration,
            connections: 64,
            timeout: Duration::from_secs(5),
            cpu: Some(self.load_cpu),
            ..Plan::get(url, 64)?
        })
    }
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let Place { machine, kernel, rounds, seconds, .. } = &self.place;
        let _ = writeln!(out, "{machine}, Linux {kernel}; {rounds} rounds of {seconds} s\n");
        let _ = writeln!(
            out,
            "{:<26}{:<10}{:>10}{:>10}{:>10}   min-max",
            "CPU us per request", "", "open", "asked", "added"
        );
        for row in &self.rows {
            let added = row.added();
            let (least, most) = (
                added.iter().copied().fold(f64::INFINITY, f64::min),
                added.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            );
            let _ = write!(
                out,
                "{:<26}{:<10}{:>10.2}{:>10.2}{:>10.2}   {least:.2}-{most:.2}",
                row.case.name(),
                row.peer,
                median(&row.open_us),
                median(&row.asked_us),
                median(&added)
            );
            if let Some(resumed) = row.least_resumed() {
                let _ = write!(out, "   a connection each, {:.1} % resumed", resumed * 100.0);
            }
            out.push('\n');
        }
        let _ = writeln!(
            out,
            "\nbare verification with ring: ES256 {:.1} us, RS256 {:.1} us\n",
            self.verify_es256_us, self.verify_rs256_us
        );
        for row in self.rows.iter().filter(|row| row.peer == Peer::Sluice.name()) {
            let added = median(&row.added());
            let (what, found, most) = match row.case {
                Case::ColdEs256 => {
                    ("of the bare verification", added / self.verify_es256_us, COLD_RATIO)
                }
                Case::ColdRs256 => continue,
                Case::MtlsResumed => {
                    let share = row.least_resumed().unwrap_or_default();
                    let verdict = if share >= RESUMED_SHARE { "met " } else { "MISS" };
                    let name = row.case.name();
                    let _ = writeln!(
                        out,
                        "{verdict}  {name}: {share:.4} of the handshakes, at least {RESUMED_SHARE}"
                    );
                    continue;
                }
                _ => ("us added", added, REMEMBERED_US),
            };
            let verdict = if found <= most { "met " } else { "MISS" };
            let _ =
                writeln!(out, "{verdict}  {}: {found:.2} {what}, at most {most}", row.case.name());
        }
        out
    }
}

impl Row {
    fn new(peer: Peer, case: Case) -> Row {
        let (open_us, asked_us, resumed) = (Vec::new(), Vec::new(), Vec::new());
        Row { peer: peer.name(), case, open_us, asked_us, resumed }
    }

    /// The least share of resumed handshakes in any run.
    fn least_resumed(&self) -> Option<f64> {
        self.resumed.iter().copied().min_by(f64::total_cmp)
    }

    /// What it adds, by round.
    fn added(&self) -> Vec<f64> {
        self.asked_us.iter().zip(&self.open_us).map(|(asked, open)| asked - open).collect()
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        _ if sorted.is_empty() => 0.0,
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

/// A new RSA key of 2,048 bits, which *ring* does not make.
fn rsa_key(directory: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let file = directory.join("rsa.der");
    let made = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .args(["-outform", "DER", "-out"])
        .arg(&file)
        .output()
        .map_err(|error| format!("openssl, which makes the RSA key: {error}"))?;
    if !made.status.success() {
        return Err(format!("openssl: {}", String::from_utf8_lossy(&made.stderr)).into());
    }
    Ok(std::fs::read(file)?)
}

#[cfg(test)]
mod tests;
