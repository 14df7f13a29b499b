//! What a limit costs that is never reached: the same requests on a route without and with one, in one
//! process and in interleaved rounds; how many of them wait for Redis; and what a key takes in memory.

mod config;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;

use crate::compare::{self, report::Place};
use crate::load::Plan;
use crate::load::target::{Message, Rotation};
use crate::peer::{self, Found, Peer};
use crate::pin::{self, Pinned};
use crate::turns::{self, Turns};
use crate::usage;

/// Measure what limits cost: local, leased from Redis, strict, and by 100,000 keys.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    turns: Turns,
}

/// Runs what is asked for, and prints it.
pub fn run(args: Args, stop: &AtomicBool) -> Result<(), Box<dyn Error>> {
    let (proxy_cpu, load_cpu, origin_cpu) = compare::layout(&pin::cpus()?)?;
    let turns = args.turns;
    let comparison = Comparison {
        peers: turns.peers(),
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

/// A limit that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// All requests are one key's, counted in the process.
    Local,
    /// One key's, leased from Redis.
    Leased,
    /// The same without fields in answers.
    Silent,
    /// Redis is asked for each.
    Strict,
    /// Leased, by a field with 100,000 values, drawn by Zipf's law.
    Keys,
}

const CASES: [Case; 5] = [Case::Local, Case::Leased, Case::Silent, Case::Strict, Case::Keys];

/// The most that a leased limit may add to a request of a hot key, in µs of CPU.
const LEASED_US: f64 = 1.0;
/// The most of a hot key's requests that may wait for Redis, in percent.
const WAITS_PERCENT: f64 = 1.0;
const KEYS: usize = 100_000;
/// The most that so many keys may take.
const KEYS_MIB: f64 = 64.0;

impl Case {
    fn name(self) -> &'static str {
        match self {
            Case::Local => "one key, local",
            Case::Leased => "one key, leased",
            Case::Silent => "one key, leased, no fields",
            Case::Strict => "one key, strict",
            Case::Keys => "100,000 keys, Zipf",
        }
    }

    pub fn path(self) -> &'static str {
        match self {
            Case::Local => "local",
            Case::Leased => "leased",
            Case::Silent => "silent",
            Case::Strict => "strict",
            Case::Keys => "keys",
        }
    }

    fn takes(self, peer: Peer) -> bool {
        match peer {
            Peer::Sluice => true,
            Peer::Nginx => match self {
                Case::Local | Case::Keys => true,
                Case::Strict => config::nginx_has_lua(),
                Case::Leased | Case::Silent => false,
            },
            _ => self == Case::Local,
        }
    }
}

struct Comparison {
    peers: Vec<Found>,
    rounds: usize,
    seconds: f64,
    proxy_cpu: usize,
    load_cpu: usize,
    origin_cpu: usize,
}

/// One case at one peer.
#[derive(Debug, Serialize)]
struct Row {
    peer: &'static str,
    case: Case,
    /// CPU µs per request without and with the limit, by round.
    open_us: Vec<f64>,
    limited_us: Vec<f64>,
    /// Decisions per second of one saturated core, and p99 of the answers, by round.
    per_s: Vec<f64>,
    p99_us: Vec<f64>,
    /// Of the decisions, how many waited for tokens, in percent, by round. Only of Sluice.
    waits_percent: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    place: Place,
    rows: Vec<Row>,
    /// Bytes of memory that a key takes, of all of Sluice's processes.
    key_bytes: Option<f64>,
}

impl Comparison {
    fn run(&self, stop: &AtomicBool) -> Result<Report, Box<dyn Error>> {
        pin::raise_open_files();
        pin::this_thread(self.load_cpu)?;
        let directory = std::env::temp_dir().join(format!("sluice-bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let report = self.measure(&directory, stop);
        let _ = std::fs::remove_dir_all(&directory);
        report
    }

    fn measure(&self, directory: &Path, stop: &AtomicBool) -> Result<Report, Box<dyn Error>> {
        let (_origin, origin) = turns::origin(self.origin_cpu, directory, stop)?;
        let mut rows = Vec::new();
        let mut key_bytes = None;
        for found in &self.peers {
            let own = directory.join(found.peer.name());
            std::fs::create_dir_all(&own)?;
            let cases = CASES.into_iter().filter(|case| case.takes(found.peer));
            let mut rows_of: Vec<Row> = cases.map(|case| Row::new(found.peer, case)).collect();
            for round in 1..=self.rounds {
                let mut world = self.start(found, &own, origin, stop)?;
                for row in &mut rows_of {
                    eprintln!("{} {round}/{}: {}", row.peer, self.rounds, row.case.name());
                    self.sample(row, &mut world, stop)?;
                }
            }
            rows.append(&mut rows_of);
            if found.peer == Peer::Sluice {
                eprintln!("sluice: memory of keys");
                let mut world = self.start(found, &own, origin, stop)?;
                key_bytes = Some(self.memory(&mut world, stop)?);
            }
        }
        let place = compare::place(
            self.proxy_cpu,
            self.load_cpu,
            self.origin_cpu,
            self.rounds,
            self.seconds,
        );
        Ok(Report { place, rows, key_bytes })
    }

    /// One round of a case: without its limit, then with it.
    fn sample(
        &self,
        row: &mut Row,
        world: &mut World,
        stop: &AtomicBool,
    ) -> Result<(), Box<dyn Error>> {
        for limited in [false, true] {
            let path = if limited { row.case.path() } else { "open" };
            let url = format!("http://{}/{path}/bytes/128", world.running.address);
            let values = (row.case == Case::Keys).then(|| zipf(KEYS, 2 * KEYS));
            let plan = self.plan(&url, values)?;
            let before = world.counted()?;
            let sample = compare::measure(&plan, &mut world.running, stop)?;
            let after = world.counted()?;
            if sample.failures > 0 {
                return Err(format!("{} requests were not answered", sample.failures).into());
            }
            if !limited {
                row.open_us.push(sample.cpu_us);
                continue;
            }
            row.limited_us.push(sample.cpu_us);
            row.per_s.push(sample.requests_per_s);
            row.p99_us.push(sample.p99_us);
            if let (Some(before), Some(after)) = (before, after) {
                let refused = after.refused - before.refused;
                if refused > 0.0 {
                    return Err(format!("{refused} requests were refused").into());
                }
                let decided = (after.decided - before.decided).max(1.0);
                row.waits_percent.push(100.0 * (after.waits - before.waits) / decided);
            }
        }
        Ok(())
    }

    /// Bytes that each of [`KEYS`] keys takes.
    fn memory(&self, world: &mut World, stop: &AtomicBool) -> Result<f64, Box<dyn Error>> {
        let root = world.running.process.as_ref().map(Pinned::id).unwrap_or_default();
        let resident =
            || -> u64 { usage::tree(root).into_iter().map(usage::rss_bytes).sum::<u64>() };
        let values = |from: usize, keys: usize| -> Vec<String> {
            (from..from + keys).map(|n| format!("key-{n:08}")).collect()
        };
        let url = format!("http://{}/keys/bytes/128", world.running.address);
        // Buffers and pools are there before anything is counted.
        let plan = self.plan(&url, Some(values(0, 100)))?;
        compare::measure(&plan, &mut world.running, stop)?;
        let before = resident();
        let mut plan = self.plan(&url, Some(values(1_000, KEYS)))?;
        let per_s = 12_000;
        plan.rate = Some(per_s);
        plan.duration = Duration::from_secs_f64(1.02 * KEYS as f64 / per_s as f64);
        compare::measure(&plan, &mut world.running, stop)?;
        Ok(resident().saturating_sub(before) as f64 / KEYS as f64)
    }

    /// A peer, and an empty Redis for it.
    fn start(
        &self,
        found: &Found,
        directory: &Path,
        origin: SocketAddr,
        stop: &AtomicBool,
    ) -> Result<World, Box<dyn Error>> {
        let (listen, admin, redis) = (pin::free_port()?, pin::free_port()?, pin::free_port()?);
        let arguments = ["--port", &redis.to_string(), "--bind", "127.0.0.1", "--save", ""]
            .map(str::to_owned)
            .to_vec();
        let program = Path::new("redis-server");
        let mut server = Pinned::start("redis", self.origin_cpu, directory, program, arguments)?;
        let at = SocketAddr::from(([127, 0, 0, 1], redis));
        server
            .wait_for(at, Duration::from_secs(5), stop)
            .map_err(|error| format!("redis-server (apt-get install redis-server): {error}"))?;
        let text = match found.peer {
            Peer::Sluice => config::sluice(listen, admin, origin.port(), redis),
            Peer::Nginx => config::nginx(listen, origin.port(), redis, directory),
            _ => config::envoy(listen, origin.port()),
        };
        let arguments = peer::arguments(found.peer, directory, &text)?;
        let name = found.peer.name();
        let mut process =
            Pinned::start(name, self.proxy_cpu, directory, &found.program, arguments)?;
        let address = SocketAddr::from(([127, 0, 0, 1], listen));
        process.wait_for(address, Duration::from_secs(10), stop)?;
        // It connects to Redis, and learns that there are no other nodes.
        std::thread::sleep(Duration::from_secs(2));
        let running = peer::Running { address, process: Some(process) };
        let admin = (found.peer == Peer::Sluice).then_some(admin);
        Ok(World { running, admin, _redis: server })
    }

    fn plan(&self, url: &str, keys: Option<Vec<String>>) -> Result<Plan, Box<dyn Error>> {
        let duration = Duration::from_secs_f64(self.seconds);
        let rotation = keys.map(|values| Arc::new(Rotation::new("X-Key", values)));
        let message = Message { rotation, ..Message::default() };
        Ok(Plan {
            message,
            warmup: Duration::from_secs(1).min(duration),
            duration,
            connections: 64,
            timeout: Duration::from_secs(5),
            cpu: Some(self.load_cpu),
            ..Plan::get(url, 64)?
        })
    }
}

/// A peer that runs, and the Redis it asks.
struct World {
    running: peer::Running,
    admin: Option<u16>,
    _redis: Pinned,
}

/// What Sluice has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counted {
    decided: f64,
    refused: f64,
    waits: f64,
}

impl World {
    fn counted(&self) -> Result<Option<Counted>, Box<dyn Error>> {
        let Some(admin) = self.admin else { return Ok(None) };
        let mut stream = TcpStream::connect(("127.0.0.1", admin))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(Some(Counted::read(&text)))
    }
}

impl Counted {
    fn read(metrics: &str) -> Counted {
        let mut counted = Counted::default();
        for line in metrics.lines() {
            let value = line.rsplit(' ').next().and_then(|value| value.parse().ok());
            let value: f64 = value.unwrap_or(0.0);
            if line.starts_with("sluice_shard_limit_waits_total") {
                counted.waits += value;
            } else if line.starts_with("sluice_shard_limit_total{") {
                counted.decided += value;
                let good = ["outcome=\"allowed\"", "outcome=\"shared\""];
                if !good.iter().any(|outcome| line.contains(outcome)) {
                    counted.refused += value;
                }
            }
        }
        counted
    }
}

/// `draws` of `keys` keys; the nth is drawn as often as 1/n says (Zipf's law).
fn zipf(keys: usize, draws: usize) -> Vec<String> {
    let mut sums = Vec::with_capacity(keys);
    let mut sum = 0.0;
    for n in 1..=keys {
        sum += 1.0 / n as f64;
        sums.push(sum);
    }
    // The same in each run: a linear congruence (Knuth's MMIX), of which the upper bits are good.
    let mut state = 1u64;
    (0..draws)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 11) as f64 / (1u64 << 53) as f64 * sum;
            format!("key-{:08}", sums.partition_point(|&up_to| up_to < at))
        })
        .collect()
}

impl Row {
    fn new(peer: Peer, case: Case) -> Row {
        Row {
            peer: peer.name(),
            case,
            open_us: Vec::new(),
            limited_us: Vec::new(),
            per_s: Vec::new(),
            p99_us: Vec::new(),
            waits_percent: Vec::new(),
        }
    }

    /// What it adds, by round.
    fn added(&self) -> Vec<f64> {
        self.limited_us.iter().zip(&self.open_us).map(|(limited, open)| limited - open).collect()
    }
}

impl Report {
    /// For people.
    fn table(&self) -> String {
        let mut out = String::new();
        let Place { machine, kernel, rounds, seconds, .. } = &self.place;
        let _ = writeln!(out, "{machine}, Linux {kernel}; {rounds} rounds of {seconds} s\n");
        let _ = writeln!(
            out,
            "{:<28}{:<8}{:>8}{:>9}{:>8}   {:<13}{:>10}{:>9}{:>9}",
            "CPU us per request",
            "",
            "open",
            "limited",
            "added",
            "min-max",
            "per s",
            "p99 us",
            "waits %"
        );
        for row in &self.rows {
            let added = row.added();
            let least = added.iter().copied().fold(f64::INFINITY, f64::min);
            let most = added.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let waits = match &row.waits_percent[..] {
                [] => String::new(),
                waits => format!("{:.3}", median(waits)),
            };
            let _ = writeln!(
                out,
                "{:<28}{:<8}{:>8.2}{:>9.2}{:>8.2}   {:<13}{:>10.0}{:>9.0}{waits:>9}",
                row.case.name(),
                row.peer,
                median(&row.open_us),
                median(&row.limited_us),
                median(&added),
                format!("{least:.2}-{most:.2}"),
                median(&row.per_s),
                median(&row.p99_us),
            );
        }
        out.push('\n');
        let mut verdict = |what: &str, found: f64, most: f64| {
            let word = if found <= most { "met " } else { "MISS" };
            let _ = writeln!(out, "{word}  {what}: {found:.2}, at most {most}");
        };
        for row in self.rows.iter().filter(|row| row.peer == Peer::Sluice.name()) {
            let hot = matches!(row.case, Case::Local | Case::Leased | Case::Silent);
            if hot {
                let what = format!("{}, us added", row.case.name());
                verdict(&what, median(&row.added()), LEASED_US);
            }
            if row.case == Case::Leased {
                verdict("requests that waited, %", median(&row.waits_percent), WAITS_PERCENT);
            }
        }
        if let Some(bytes) = self.key_bytes {
            let mib = bytes * KEYS as f64 / f64::from(1 << 20);
            verdict(&format!("{KEYS} keys ({bytes:.0} bytes each), MiB"), mib, KEYS_MIB);
        }
        out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read() {
        let text = "sluice_shard_limit_waits_total{shard=\"0\"} 3\n\
                    sluice_shard_limit_total{shard=\"0\",outcome=\"allowed\"} 10\n\
                    sluice_shard_limit_total{shard=\"1\",outcome=\"limited\"} 4\n\
                    sluice_shard_limit_total{shard=\"1\",outcome=\"shared\"} 1\n\
                    sluice_other 9\n";
        let expected = Counted { decided: 15.0, refused: 4.0, waits: 3.0 };
        assert_eq!(Counted::read(text), expected);
    }

    #[test]
    fn few_keys_are_most_of_the_requests() {
        let drawn = zipf(1_000, 20_000);
        let count = |key: &str| drawn.iter().filter(|one| *one == key).count() as f64;
        let (first, tenth) = (count("key-00000000"), count("key-00000009"));
        assert!((8.0..12.5).contains(&(first / tenth)), "{first} {tenth}");
        let mut all = drawn.clone();
        all.sort();
        all.dedup();
        assert!(all.len() > 800, "{}", all.len());
    }
}
