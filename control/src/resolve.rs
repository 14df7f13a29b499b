//! Upstream host names to addresses, kept fresh by TTL.
//!
//! `/etc/resolv.conf` and `/etc/hosts` are honoured, and read again when they change. A records
//! are used, AAAA records when there is no A: a gateway without IPv6 connectivity would otherwise
//! lose every second request. A failure keeps the last good addresses.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
};
use serde::Serialize;
use tokio::sync::Notify;

/// Bounds of how long an answer is believed, whatever its TTL says.
const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_secs(300);

/// First and longest pause after a failed look-up.
const MIN_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Longest one look-up may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Addresses taken from one answer.
const MAX_ADDRESSES: usize = 256;

/// The names in use and what they resolve to.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    hosts: Mutex<HashMap<String, Host>>,
    source: Source,
    /// Signalled when a host's addresses changed.
    changed: Notify,
    /// Signalled when the set of hosts changed.
    wanted: Notify,
}

#[derive(Default)]
struct Host {
    /// Sorted, without duplicates.
    addresses: Vec<IpAddr>,
    /// When to look up again; `None`: being looked up now.
    due: Option<Instant>,
    /// Failed look-ups since the last good one.
    failures: u32,
    error: Option<String>,
}

/// One host for `status`.
#[derive(Clone, Debug, Serialize)]
pub struct HostState {
    pub host: String,
    pub addresses: Vec<IpAddr>,
    /// Why the last look-up failed.
    pub error: Option<String>,
}

struct Answer {
    addresses: Vec<IpAddr>,
    ttl: Duration,
}

enum Source {
    System(Box<Mutex<System>>),
    #[cfg(test)]
    Table(Mutex<Table>),
}

/// Answers for tests, by host.
#[cfg(test)]
type Table = HashMap<String, Result<(Vec<IpAddr>, Duration), String>>;

/// The system's resolver, and the files it was made of.
struct System {
    resolver: TokioResolver,
    files: [Option<SystemTime>; 2],
}

impl Resolver {
    /// A resolver with the system's configuration.
    pub fn system() -> Resolver {
        Resolver::with(Source::System(Box::new(Mutex::new(System::read()))))
    }

    /// One that knows these names alone.
    #[cfg(test)]
    pub(crate) fn of(names: &[(&str, &[IpAddr])]) -> Resolver {
        let answer = |addresses: &[IpAddr]| Ok((addresses.to_vec(), Duration::from_secs(60)));
        let names = names.iter().map(|(name, list)| ((*name).to_owned(), answer(list)));
        Resolver::with(Source::Table(Mutex::new(names.collect())))
    }

    fn with(source: Source) -> Resolver {
        Resolver {
            shared: Arc::new(Shared {
                hosts: Mutex::default(),
                source,
                changed: Notify::new(),
                wanted: Notify::new(),
            }),
        }
    }

    /// Looks up those of `hosts` that are not known yet, waiting at most `limit`. A slower answer
    /// is taken when it comes, and then [`Resolver::changed`] fires.
    pub async fn ensure(&self, hosts: &[String], limit: Duration) {
        let new: Vec<String> = {
            let mut known = self.shared.lock();
            let new = hosts.iter().filter(|host| !known.contains_key(*host)).cloned().collect();
            for host in &new {
                let host: &String = host;
                known.insert(host.clone(), Host::default());
            }
            new
        };
        let lookups: Vec<_> = new.into_iter().map(|host| self.spawn(host)).collect();
        let all = async {
            for lookup in lookups {
                // A look-up that panicked leaves its host without addresses.
                _ = lookup.await;
            }
        };
        _ = tokio::time::timeout(limit, all).await;
        self.shared.wanted.notify_one();
    }

    /// Forgets every host that is not in `hosts`.
    pub fn retain(&self, hosts: &[String]) {
        let hosts: BTreeSet<&str> = hosts.iter().map(String::as_str).collect();
        self.shared.lock().retain(|host, _| hosts.contains(host.as_str()));
    }

    /// The addresses of `host`, sorted; none when it is unknown or never resolved.
    pub fn addresses(&self, host: &str) -> Vec<IpAddr> {
        self.shared.lock().get(host).map(|host| host.addresses.clone()).unwrap_or_default()
    }

    /// Resolves once the addresses of a host have changed since the last call.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// The addresses of `host` as of now, for one who needs them once.
    ///
    /// # Errors
    /// Why there are none, for people.
    pub async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        self.shared.look_up(host).await.map(|answer| answer.addresses)
    }

    /// Every host with its state, by name.
    pub fn states(&self) -> Vec<HostState> {
        let mut states: Vec<HostState> = self
            .shared
            .lock()
            .iter()
            .map(|(name, host)| HostState {
                host: name.clone(),
                addresses: host.addresses.clone(),
                error: host.error.clone(),
            })
            .collect();
        states.sort_by(|a, b| a.host.cmp(&b.host));
        states
    }

    /// Looks names up again as their TTLs end. Runs for ever.
    pub async fn keep_fresh(&self) {
        loop {
            let next = self.shared.lock().values().filter_map(|host| host.due).min();
            match next {
                None => self.shared.wanted.notified().await,
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(due.into()) => self.refresh(Instant::now()),
                    () = self.shared.wanted.notified() => {}
                },
            }
        }
    }

    /// Starts a look-up of every host due at `now`.
    fn refresh(&self, now: Instant) {
        let due: Vec<String> = {
            let mut hosts = self.shared.lock();
            let due = hosts.iter_mut().filter(|(_, host)| host.due.is_some_and(|due| due <= now));
            due.map(|(name, host)| {
                host.due = None;
                name.clone()
            })
            .collect()
        };
        for host in due {
            drop(self.spawn(host));
        }
    }

    fn spawn(&self, host: String) -> tokio::task::JoinHandle<()> {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let answer = shared.look_up(&host).await;
            let changed = match shared.lock().get_mut(&host) {
                Some(known) => known.take(answer, Instant::now()),
                // Forgotten in the meantime.
                None => false,
            };
            if changed {
                shared.changed.notify_one();
            }
            shared.wanted.notify_one();
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_up(&self, host: &str) -> Result<Answer, String> {
        match tokio::time::timeout(LOOKUP_TIMEOUT, self.source.look_up(host)).await {
            Ok(answer) => answer,
            Err(_) => Err("no answer in time".into()),
        }
    }
}

impl Host {
    /// Takes an answer in; whether the addresses are others than before.
    fn take(&mut self, answer: Result<Answer, String>, now: Instant) -> bool {
        match answer {
            Ok(Answer { mut addresses, ttl }) => {
                addresses.sort_unstable();
                addresses.dedup();
                addresses.truncate(MAX_ADDRESSES);
                self.due = Some(now + ttl.clamp(MIN_TTL, MAX_TTL));
                self.failures = 0;
                self.error = None;
                let changed = self.addresses != addresses;
                self.addresses = addresses;
                changed
            }
            Err(error) => {
                let pause = MIN_RETRY.saturating_mul(1 << self.failures.min(8));
                self.due = Some(now + pause.min(MAX_RETRY));
                self.failures = self.failures.saturating_add(1);
                self.error = Some(error);
                false
            }
        }
    }
}

impl Source {
    async fn look_up(&self, host: &str) -> Result<Answer, String> {
        match self {
            Source::System(system) => {
                let resolver = system.lock().unwrap_or_else(PoisonError::into_inner).current();
                let answer = resolver.lookup_ip(host).await.map_err(|error| why(&error))?;
                let ttl = answer.valid_until().saturating_duration_since(Instant::now());
                let addresses: Vec<IpAddr> = answer.iter().collect();
                if addresses.is_empty() {
                    return Err("the name has no address".into());
                }
                Ok(Answer { addresses, ttl })
            }
            #[cfg(test)]
            Source::Table(table) => {
                let answer = table.lock().unwrap().get(host).cloned();
                let (addresses, ttl) = answer.unwrap_or_else(|| Err("unknown".into()))?;
                Ok(Answer { addresses, ttl })
            }
        }
    }
}

/// Why a look-up failed, for people.
fn why(error: &NetError) -> String {
    if error.is_nx_domain() {
        "there is no such name".into()
    } else if error.is_no_records_found() {
        "the name has no address".into()
    } else {
        error.to_string()
    }
}

impl System {
    fn read() -> System {
        let files = System::files();
        let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            eprintln!("sluice: /etc/resolv.conf cannot be used ({error}); only /etc/hosts is");
            TokioResolver::builder_with_config(
                ResolverConfig::default(),
                TokioRuntimeProvider::default(),
            )
        });
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
        // Every look-up here is due: a cache would only hide the TTL.
        options.cache_size = 0;
        let resolver = builder.build().unwrap_or_else(|error| {
            eprintln!("sluice: the DNS settings cannot be used ({error}); only /etc/hosts is");
            TokioResolver::builder_with_config(
                ResolverConfig::default(),
                TokioRuntimeProvider::default(),
            )
            .build()
            .unwrap_or_else(|error| unreachable!("an empty DNS configuration was refused: {error}"))
        });
        System { resolver, files }
    }

    fn files() -> [Option<SystemTime>; 2] {
        ["/etc/resolv.conf", "/etc/hosts"]
            .map(|path| Path::new(path).metadata().and_then(|file| file.modified()).ok())
    }

    fn current(&mut self) -> TokioResolver {
        if self.files != System::files() {
            *self = System::read();
        }
        self.resolver.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn table(resolver: &Resolver) -> MutexGuard<'_, Table> {
        let Source::Table(table) = &resolver.shared.source else { panic!() };
        table.lock().unwrap()
    }

    fn run(work: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(20), work).await.expect("ends in time");
        });
    }

    #[test]
    fn a_failure_keeps_the_last_good_addresses_and_backs_off() {
        let now = Instant::now();
        let mut host = Host::default();
        let good = || Ok(Answer { addresses: vec![ip(2), ip(1), ip(2)], ttl: Duration::ZERO });
        assert!(host.take(good(), now));
        assert_eq!(host.addresses, [ip(1), ip(2)]);
        assert_eq!(host.due, Some(now + MIN_TTL));
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            assert!(!host.take(Err("gone".into()), now));
            assert_eq!(host.due, Some(now + Duration::from_secs(pause)));
        }
        assert_eq!(host.addresses, [ip(1), ip(2)]);
        assert!(!host.take(good(), now), "same set, nothing to publish");
        assert_eq!((host.failures, host.error.clone()), (0, None));
        let long = Answer { addresses: vec![], ttl: Duration::from_secs(1 << 40) };
        assert!(host.take(Ok(long), now));
        assert_eq!(host.due, Some(now + MAX_TTL));
    }

    #[test]
    fn a_new_answer_is_announced_after_its_ttl() {
        run(async {
            let resolver = Resolver::with(Source::Table(Mutex::default()));
            table(&resolver).insert("a".into(), Ok((vec![ip(1)], Duration::ZERO)));
            resolver.ensure(&["a".into(), "b".into()], Duration::from_secs(5)).await;
            assert_eq!(resolver.addresses("a"), [ip(1)]);
            assert_eq!(resolver.addresses("b"), [] as [IpAddr; 0]);
            assert_eq!(resolver.states()[1].error.as_deref(), Some("unknown"));
            // The first answer counts as a change, too.
            resolver.changed().await;

            table(&resolver).insert("a".into(), Ok((vec![ip(3)], Duration::ZERO)));
            tokio::select! {
                () = resolver.keep_fresh() => unreachable!(),
                () = resolver.changed() => {}
            }
            assert_eq!(resolver.addresses("a"), [ip(3)]);

            resolver.retain(&["b".into()]);
            assert_eq!(resolver.addresses("a"), [] as [IpAddr; 0]);
        });
    }

    #[test]
    fn the_hosts_file_answers_for_localhost() {
        run(async {
            let resolver = Resolver::system();
            resolver.ensure(&["localhost".into()], Duration::from_secs(5)).await;
            assert_eq!(resolver.addresses("localhost"), [IpAddr::from([127, 0, 0, 1])]);
        });
    }
}
