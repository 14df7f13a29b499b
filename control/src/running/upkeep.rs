//! What changes a snapshot without a new spec: addresses of host names, files with certificates and
//! secrets, keys of sessions, what providers say. Each change is a new epoch of the same revision.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use contract::segment::MAX_WISHES;
use contract::snapshot::{Snapshot, TicketKey};

use super::{Current, Refused, Running};
use crate::{
    compile::{Before, Inputs, compile},
    fit::{self, unix_now},
    keys::{self, Fetched, Source},
    material::{self, Fault, Material, Stamp, outside, protos::reflection},
    resolve::Resolver,
    spec::{AuthenticatorKind, Severity, Spec},
    tickets::Tickets,
};

/// How often files and keys are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked at what shards wish for, and which providers are due.
const WISH_LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A file changed within this many seconds is read again: it may change once more without a
/// difference that the file system's clock tells.
const RECENT: i64 = 3;

/// What the last look at the files saw.
#[derive(Default)]
struct Look {
    stamps: BTreeMap<String, Option<Stamp>>,
    /// What is wrong with them, for people; each is said once.
    errors: Vec<String>,
}

/// Keys that are the node's own.
#[derive(Default, PartialEq, Eq)]
pub(super) struct NodeKeys {
    /// Of TLS sessions.
    pub tickets: Vec<TicketKey>,
    /// Of the cookies of logins.
    pub cookies: Vec<[u8; 32]>,
}

impl Running {
    /// Follows DNS: publishes a new epoch whenever a host's addresses change. Runs for ever.
    pub async fn follow_names(&self) {
        loop {
            self.shared.resolver.changed().await;
            if let Err(error) = self.refresh().await {
                eprintln!("sluice: new upstream addresses could not be published: {error}");
            }
        }
    }

    /// Follows files and the age of session keys. Runs for ever.
    pub async fn follow_files(&self) {
        let mut look = Look::default();
        let mut keys = NodeKeys::default();
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if let Err(error) = self.look(&mut look).await {
                eprintln!("sluice: what the files hold now could not be published: {error}");
            }
            let next = self.node_keys(&self.current().spec);
            if next == keys {
                continue;
            }
            match self.refresh().await {
                Ok(()) => keys = next,
                Err(error) => eprintln!("sluice: new session keys could not be published: {error}"),
            }
        }
    }

    /// Follows providers: asks them as their answers end or shards wish, and publishes a new epoch
    /// whenever one says something new. Runs for ever.
    pub async fn follow_providers(&self) {
        tokio::join!(self.ask_providers(), async {
            loop {
                self.shared.providers.changed().await;
                match self.refresh().await {
                    Ok(()) => {}
                    Err(error) => {
                        eprintln!("sluice: what providers say now could not be published: {error}");
                    }
                }
            }
        });
    }

    async fn ask_providers(&self) {
        let wishes = self.shared.segment.wishes();
        let look = || (0..MAX_WISHES as u32).map(|place| wishes.count(place)).collect::<Vec<u64>>();
        // What was wished for before is no wish of now.
        let mut seen = look();
        let mut sources: (u64, Vec<Source>) = (0, Vec::new());
        loop {
            tokio::time::sleep(WISH_LOOK_INTERVAL).await;
            let current = self.current();
            if sources.0 != current.revision.id {
                sources = (current.revision.id, keys::sources(&current.spec));
            }
            let counts = look();
            let changed =
                counts.iter().zip(&seen).enumerate().filter(|(_, (now, then))| now != then);
            let wished: Vec<usize> = changed.map(|(place, _)| place).collect();
            seen = counts;
            let (providers, now) = (&self.shared.providers, Instant::now());
            providers.refresh(&sources.1, &current.material, &wished, now);
        }
    }

    /// Reads the files again if one of them has changed, and publishes what is whole.
    async fn look(&self, look: &mut Look) -> Result<(), Refused> {
        let current = self.current();
        let mut spec = Spec::clone(&current.spec);
        let mut files: Vec<String> =
            spec.files_mut().into_iter().map(|(_, file)| file.clone()).collect();
        files.extend(current.material.more_files().map(String::from));
        let commands = outside::commands(&mut spec);
        let asks = reflection::is_wanted(&spec);
        if files.is_empty() && commands.is_empty() && !asks {
            *look = Look::default();
            self.set_errors(&[]);
            return Ok(());
        }
        // A file system may hang, and that must not hold up anything else.
        let stamps = away(move || material::stamps(files.iter().map(String::as_str))).await?;
        let now = unix_now();
        let recent = stamps.values().flatten().any(|stamp| stamp.changed_within(RECENT, now));
        let due = outside::is_due(&commands, now) || reflection::is_due(&spec, now);
        if stamps == look.stamps && !recent && look.errors.is_empty() && !due {
            return Ok(());
        }
        look.stamps = stamps;
        let before = Arc::clone(&current.material);
        let judge = self.shared.engine.check;
        let (material, errors) = away(move || {
            let mut failed = outside::run(&commands, now);
            failed.extend(reflection::run(&spec, &before, now));
            let (material, faults) = Material::load(&spec, Some(&before), now);
            let (material, mut errors) = settle(&spec, &before, material, &faults, judge);
            errors.extend(failed.iter().map(ToString::to_string));
            (material, errors)
        })
        .await?;
        for error in errors.iter().filter(|error| !look.errors.contains(error)) {
            eprintln!("sluice: {error}; what it held before stays in use");
        }
        if errors.is_empty() && !look.errors.is_empty() {
            eprintln!("sluice: the files are whole again");
        }
        self.set_errors(&errors);
        look.errors = errors;
        if material != *current.material {
            self.adopt(&current, Arc::new(material)).await?;
        }
        Ok(())
    }

    /// Publishes the running spec with other material.
    async fn adopt(&self, seen: &Current, material: Arc<Material>) -> Result<(), Refused> {
        let mut publisher = self.shared.publisher.lock().await;
        let current = self.current();
        // Another spec has come meanwhile, with material of its own.
        if current.revision.id != seen.revision.id {
            return Ok(());
        }
        let Current { revision, spec, snapshot: old, .. } = &*current;
        let snapshot = self.compiled(spec, old.epoch, revision.id, &material, None);
        if snapshot == **old {
            self.set(Current {
                revision: revision.clone(),
                spec: Arc::clone(spec),
                material,
                snapshot: Arc::clone(old),
                convergence: current.convergence,
            });
            return Ok(());
        }
        let snapshot = Snapshot { epoch: publisher.next_epoch(), ..snapshot };
        let epoch = snapshot.epoch;
        let whole = (Arc::clone(spec), material);
        self.publish(&mut publisher, revision.clone(), whole, snapshot).await?;
        eprintln!("sluice: files have changed; epoch {epoch} serves with what they hold now");
        Ok(())
    }

    /// Publishes the running spec again when its compiled form has changed.
    async fn refresh(&self) -> Result<(), Refused> {
        let mut publisher = self.shared.publisher.lock().await;
        let current = self.current();
        let Current { revision, spec, material, snapshot: old, .. } = &*current;
        let snapshot = self.compiled(spec, old.epoch, revision.id, material, None);
        if snapshot == **old {
            return Ok(());
        }
        let snapshot = Snapshot { epoch: publisher.next_epoch(), ..snapshot };
        let whole = (Arc::clone(spec), Arc::clone(material));
        self.publish(&mut publisher, revision.clone(), whole, snapshot).await?;
        Ok(())
    }

    pub(super) fn compiled(
        &self,
        spec: &Spec,
        epoch: u64,
        revision: u64,
        material: &Material,
        own: Option<Before<'_>>,
    ) -> Snapshot {
        let keys = self.node_keys(spec);
        let fetched = self.shared.providers.fetched(&keys::sources(spec));
        let resolver = &self.shared.resolver;
        let current = self.current();
        let before = Before {
            spec: &current.spec,
            material: &current.material,
            auth: &current.snapshot.auth,
        };
        let inputs = (resolver, material);
        compiled(spec, epoch, revision, inputs, &keys, &fetched, own.or(Some(before)))
    }

    /// The node's keys in force, which is where those of a cluster would come from; none when nothing
    /// in `spec` needs them.
    fn node_keys(&self, spec: &Spec) -> NodeKeys {
        let mut tickets = self.shared.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cookies = self.shared.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        NodeKeys {
            tickets: ticket_keys(&mut tickets, spec),
            cookies: cookie_keys(&mut cookies, spec),
        }
    }

    fn set_errors(&self, errors: &[String]) {
        let mut held = self.shared.file_errors.write().unwrap_or_else(PoisonError::into_inner);
        errors.clone_into(&mut held);
    }

    /// What is wrong with the running spec's files.
    pub fn file_errors(&self) -> Vec<String> {
        self.shared.file_errors.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What of `material`, loaded over `before`, may be used, and what people must be told.
fn settle(
    spec: &Spec,
    before: &Material,
    material: Material,
    faults: &[Fault],
    judge: fit::Judge,
) -> (Material, Vec<String>) {
    let wrong = faults.iter().filter(|fault| fault.severity == Severity::Error);
    let mut errors: Vec<String> = wrong.clone().map(ToString::to_string).collect();
    // A certificate that is good by itself but has names that do not fit beside the others.
    if material.is_pending() {
        return (before.clone(), errors);
    }
    let clash = wrong.clone().any(|fault| {
        matches!(fault.code, "no-names" | "duplicate-server-name" | "unknown-operation")
    });
    if clash {
        return (before.clone(), errors);
    }
    if material != *before
        && let Err(unfit) = judge(&fit::plain(spec, &material))
    {
        errors.push(format!("the engine cannot take what the files hold now: {}", unfit.problem));
        return (before.clone(), errors);
    }
    (material, errors)
}

pub(super) fn compiled(
    spec: &Spec,
    epoch: u64,
    revision: u64,
    (resolver, material): (&Resolver, &Material),
    keys: &NodeKeys,
    fetched: &Fetched,
    before: Option<Before<'_>>,
) -> Snapshot {
    let inputs = Inputs {
        resolve: &|host: &str| resolver.addresses(host),
        material,
        ticket_keys: &keys.tickets,
        cookie_keys: &keys.cookies,
        fetched,
        before,
    };
    compile(spec, epoch, revision, &inputs)
}

/// Runs `work` where it may block.
async fn away<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Refused::Internal(error.to_string()))
}

/// The ticket keys in force; none when nothing in `spec` needs them.
pub(super) fn ticket_keys(tickets: &mut Tickets, spec: &Spec) -> Vec<TicketKey> {
    if spec.listeners.iter().all(|listener| listener.tls.is_none()) {
        return Vec::new();
    }
    tickets.supply(unix_now()).unwrap_or_else(|error| {
        eprintln!("sluice: no key for TLS sessions can be made, none will be resumed: {error}");
        Vec::new()
    })
}

/// The keys in force for cookies of logins, newest first; none when nothing in `spec` needs them.
pub(super) fn cookie_keys(cookies: &mut Tickets, spec: &Spec) -> Vec<[u8; 32]> {
    let needed = spec.authenticators.iter().any(
        |one| matches!(&one.kind, AuthenticatorKind::Login(login) if login.cookie_keys.is_empty()),
    );
    if !needed {
        return Vec::new();
    }
    let keys = cookies.supply(unix_now()).unwrap_or_else(|error| {
        eprintln!("sluice: no key for the cookies of logins can be made: {error}");
        Vec::new()
    });
    keys.into_iter().map(|key| key.secret).collect()
}
