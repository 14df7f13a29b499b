//! The store of many nodes: a PostgreSQL database.
//!
//! The driver is `tokio-postgres`: it speaks LISTEN, runs on the runtime that control has anyway, and
//! is a small part of what an SQL toolkit for several databases would bring. One connection does all
//! calls, one at a time; another one listens ([`watch`]).

mod address;
mod entities;
mod log;
mod rollouts;
mod schema;
#[cfg(test)]
pub mod server;
#[cfg(test)]
mod tests;
mod tls;
mod watch;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, MutexGuard, watch as channel};
use tokio_postgres::{Client, Row, Transaction, error::SqlState};

pub use self::address::Address;
use super::{Draft, Known, MAX_KEPT, MAX_KEY_USES, Revision, RevisionLine, StoreError, now_ms};

/// Longest that a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest that a call may take. A server that stands still would hold up the API otherwise.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Within that, the server gives up by itself, and says why.
const SETTINGS: &str = "SET statement_timeout = 4000; SET lock_timeout = 3000;
    SET idle_in_transaction_session_timeout = 10000; SET application_name = 'sluice'";

/// First and longest pause after a connection that did not come up. Calls fail at once meanwhile.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Advisory locks, by what they put in order. The first number is ours alone.
const LOCKS: i32 = 0x51_1c_e0;
const MIGRATING: i32 = 1;
const APPENDING: i32 = 2;
const AUDITING: i32 = 3;

const COLUMNS: &str = "id, (extract(epoch FROM created) * 1000)::bigint, author, message,
    spec::text, source, source_name, diff::text";

/// The database. Connections come up when they are needed, and again when they were lost.
#[derive(Clone)]
pub struct Postgres {
    shared: Arc<Shared>,
}

struct Shared {
    address: Address,
    link: Mutex<Link>,
    /// The server's clock less ours, in milliseconds.
    ahead_ms: AtomicI64,
}

/// The connection that does the calls.
#[derive(Default)]
struct Link {
    client: Option<Client>,
    /// When and why there was none the last time, and how long no other is tried.
    failed: Option<(Instant, String)>,
    pause: Duration,
}

/// Why a call did not succeed.
enum Fault {
    Database(tokio_postgres::Error),
    Time,
    Store(StoreError),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Fault {
        Fault::Database(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Store(error)
    }
}

/// The connection, for one call.
struct Held<'a> {
    link: MutexGuard<'a, Link>,
}

impl Postgres {
    /// `changes` learns of every revision, by whichever node it was stored.
    pub fn at(address: Address, changes: channel::Sender<Known>) -> Postgres {
        let shared = Shared { address, link: Mutex::default(), ahead_ms: AtomicI64::new(0) };
        let shared = Arc::new(shared);
        tokio::spawn(watch::follow(Arc::downgrade(&shared), changes));
        Postgres { shared }
    }

    pub fn place(&self) -> String {
        self.shared.address.to_string()
    }

    pub async fn ready(&self) -> Result<(), StoreError> {
        self.hold().await.map(drop)
    }

    /// Milliseconds since the Unix epoch by the server's clock, as last heard of.
    pub fn now_ms(&self) -> u64 {
        now_ms().saturating_add_signed(self.shared.ahead_ms.load(Ordering::Relaxed))
    }

    pub async fn append(&self, draft: Draft, over: Option<u64>) -> Result<Revision, StoreError> {
        // A large spec takes its time.
        let time = CALL_TIMEOUT + Duration::from_secs(draft.spec.len() as u64 >> 20);
        let mut held = self.hold().await?;
        let done = held.run_for(time, async |client| append(client, draft, over, time).await).await;
        held.judge(done, "whether it was stored is not known: `sluice get revisions` tells")
    }

    pub async fn latest(&self) -> Result<Option<Revision>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM revisions ORDER BY id DESC LIMIT 1");
        let mut held = self.hold().await?;
        let done = held.run(async |client| Ok(client.query_opt(&query, &[]).await?)).await;
        held.judge(done, "")?.map(|row| revision(&row)).transpose()
    }

    pub async fn latest_id(&self) -> Result<u64, StoreError> {
        let mut held = self.hold().await?;
        let done = held.run(async |client| latest_id(client).await).await;
        held.judge(done, "")
    }

    pub async fn get(&self, id: u64) -> Result<Option<Revision>, StoreError> {
        // Ids past i64 cannot be in the table.
        let Ok(id) = i64::try_from(id) else { return Ok(None) };
        let query = format!("SELECT {COLUMNS} FROM revisions WHERE id = $1");
        let mut held = self.hold().await?;
        let done = held.run(async |client| Ok(client.query_opt(&query, &[&id]).await?)).await;
        held.judge(done, "")?.map(|row| revision(&row)).transpose()
    }

    pub async fn list(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<RevisionLine>, StoreError> {
        let query = "SELECT id, (extract(epoch FROM created) * 1000)::bigint, author, message,
            source_name FROM revisions WHERE id < $1 ORDER BY id DESC LIMIT $2";
        let (before, limit) = (end(before), i64::from(limit));
        let mut held = self.hold().await?;
        let done =
            held.run(async |client| Ok(client.query(query, &[&before, &limit]).await?)).await;
        let line = |row: &Row| -> Result<RevisionLine, StoreError> {
            Ok(RevisionLine {
                id: get::<i64>(row, 0)? as u64,
                created_ms: get::<i64>(row, 1)? as u64,
                author: get(row, 2)?,
                message: get(row, 3)?,
                source_name: get(row, 4)?,
            })
        };
        held.judge(done, "")?.iter().map(line).collect()
    }

    pub async fn note_key_uses(
        &self,
        uses: HashMap<[u8; 32], u64>,
        since_s: u64,
    ) -> Result<(), StoreError> {
        let (digests, used): (Vec<Vec<u8>>, Vec<i64>) = uses
            .into_iter()
            .map(|(digest, used_s)| (digest.to_vec(), i64::try_from(used_s).unwrap_or(i64::MAX)))
            .unzip();
        let since_s = i64::try_from(since_s).unwrap_or(i64::MAX);
        // In the order of the digests: two nodes that note the same keys must not wait for each
        // other.
        let note = "INSERT INTO key_uses (digest, used_s)
            SELECT * FROM unnest($1::bytea[], $2::bigint[]) AS new (digest, used_s) ORDER BY 1
            ON CONFLICT (digest) DO UPDATE
            SET used_s = greatest(key_uses.used_s, excluded.used_s)";
        let mut held = self.hold().await?;
        let done = held
            .run(async |client| {
                let change = client.transaction().await?;
                change.execute(note, &[&digests, &used]).await?;
                change.execute("DELETE FROM key_uses WHERE used_s < $1", &[&since_s]).await?;
                Ok(change.commit().await?)
            })
            .await;
        held.judge(done, "")
    }

    pub async fn key_uses(&self) -> Result<HashMap<[u8; 32], u64>, StoreError> {
        let query = "SELECT digest, used_s FROM key_uses ORDER BY used_s DESC LIMIT $1";
        let limit = MAX_KEY_USES as i64;
        let mut held = self.hold().await?;
        let done = held.run(async |client| Ok(client.query(query, &[&limit]).await?)).await;
        let mut uses = HashMap::new();
        for row in held.judge(done, "")? {
            if let Ok(digest) = <[u8; 32]>::try_from(get::<&[u8]>(&row, 0)?) {
                uses.insert(digest, get::<i64>(&row, 1)?.max(0) as u64);
            }
        }
        Ok(uses)
    }

    /// The connection, for this call alone; a new one where there is none.
    async fn hold(&self) -> Result<Held<'_>, StoreError> {
        let mut link = self.shared.link.lock().await;
        if link.client.as_ref().is_some_and(|client| !client.is_closed()) {
            return Ok(Held { link });
        }
        link.client = None;
        if let Some((when, why)) = &link.failed
            && when.elapsed() < link.pause
        {
            return Err(StoreError::Failed(why.clone()));
        }
        let opened = async {
            let mut client = self.shared.address.connect().await?;
            client.batch_execute(SETTINGS).await?;
            schema::migrate(&mut client, &self.shared.address).await?;
            let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
            let theirs: i64 = client.query_one(now, &[]).await?.try_get(0)?;
            self.shared.ahead_ms.store(theirs - now_ms() as i64, Ordering::Relaxed);
            Ok(client)
        };
        match bounded(CALL_TIMEOUT, opened).await {
            Ok(client) => {
                *link = Link { client: Some(client), ..Link::default() };
                Ok(Held { link })
            }
            Err(Fault::Store(error)) => Err(error),
            Err(fault) => {
                let why = format!("{}: {}", self.place(), fault.reason());
                link.pause = (link.pause * 2).clamp(MIN_PAUSE, MAX_PAUSE);
                link.failed = Some((Instant::now(), why.clone()));
                Err(StoreError::Failed(why))
            }
        }
    }
}

impl Held<'_> {
    /// Lets `work` use the connection, for [`CALL_TIMEOUT`].
    async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.run_for(CALL_TIMEOUT, work).await
    }

    async fn run_for<T>(
        &mut self,
        time: Duration,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        match &mut self.link.client {
            Some(client) => bounded(time, work(client)).await,
            None => Err(Fault::Time),
        }
    }

    /// What callers get. A connection that is lost or too slow is not used again; `lost` is what
    /// they must know then.
    fn judge<T>(mut self, done: Result<T, Fault>, lost: &str) -> Result<T, StoreError> {
        let fault = match done {
            Ok(done) => return Ok(done),
            Err(Fault::Store(error)) => return Err(error),
            Err(fault) => fault,
        };
        let mut why = fault.reason();
        let gone = match &fault {
            Fault::Database(error) => error.as_db_error().is_none() || error.is_closed(),
            _ => true,
        };
        if gone {
            self.link.client = None;
            self.link.pause = MIN_PAUSE;
            self.link.failed = Some((Instant::now(), why.clone()));
            if !lost.is_empty() {
                why = format!("{why}; {lost}");
            }
        }
        Err(StoreError::Failed(why))
    }
}

impl Fault {
    /// For people.
    fn reason(&self) -> String {
        match self {
            Fault::Time => "PostgreSQL does not answer in time".into(),
            Fault::Store(error) => error.to_string(),
            Fault::Database(error) => reason(error),
        }
    }
}

/// What the driver's errors mean: their own text is often no more than their kind.
fn reason(error: &tokio_postgres::Error) -> String {
    if let Some(told) = error.as_db_error() {
        let help = match *told.code() {
            SqlState::DISK_FULL => "; the database's disk is full",
            SqlState::READ_ONLY_SQL_TRANSACTION => {
                "; this server takes no changes: is it a replica?"
            }
            SqlState::LOCK_NOT_AVAILABLE => "; somebody else holds its tables for long",
            SqlState::INVALID_PASSWORD => "; PGPASSWORD or PGPASSFILE may say the password",
            _ => "",
        };
        return format!("PostgreSQL: {} ({}){help}", told.message(), told.code().code());
    }
    let mut text = format!("PostgreSQL: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

async fn bounded<T>(
    time: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    tokio::time::timeout(time, work).await.unwrap_or(Err(Fault::Time))
}

/// In one transaction: the revision, what it consists of, its audit entry, and word to other nodes.
async fn append(
    client: &mut Client,
    draft: Draft,
    over: Option<u64>,
    time: Duration,
) -> Result<Revision, Fault> {
    let change = client.transaction().await?;
    let bound = format!("SET LOCAL statement_timeout = {}", time.as_millis().saturating_sub(1_000));
    change.batch_execute(&bound).await?;
    lock(&change, APPENDING).await?;
    let query = "SELECT coalesce(max(id), 0)::bigint FROM revisions";
    let latest: i64 = change.query_one(query, &[]).await?.try_get(0)?;
    if over.is_some_and(|over| over != latest as u64) {
        return Err(StoreError::Changed { latest: latest as u64 }.into());
    }
    let id = latest + 1;
    rollouts::check(&change, latest, &draft.trial).await?;
    let Draft { author, message, spec, source, source_name, delta: _, diff, audit, base, trial } =
        draft;
    let told = (!diff.is_null()).then(|| diff.to_string());
    let insert =
        "INSERT INTO revisions (id, created, author, message, spec, source, source_name, diff)
        VALUES ($1, date_trunc('milliseconds', clock_timestamp()), $2, $3, $4::text::jsonb, $5, $6,
            $7::text::jsonb)
        RETURNING (extract(epoch FROM created) * 1000)::bigint";
    let row = change
        .query_one(insert, &[&id, &author, &message, &&*spec, &&*source, &source_name, &told])
        .await?;
    let created_ms = row.try_get::<_, i64>(0)? as u64;
    change.execute("DELETE FROM revisions WHERE id <= $1", &[&(id - MAX_KEPT as i64)]).await?;
    // A diff against another revision than the latest does not say what rows have to change.
    let known = if base == Some(latest as u64) { &diff } else { &serde_json::Value::Null };
    entities::write(&change, id, &spec, known).await?;
    if let Some(mut audit) = audit {
        audit.revision.get_or_insert(id as u64);
        log::link(&change, audit).await?;
    }
    rollouts::write(&change, id, created_ms, trial).await?;
    change.execute("SELECT pg_notify('sluice', $1)", &[&id.to_string()]).await?;
    change.commit().await?;
    Ok(Revision { id: id as u64, created_ms, author, message, spec, source, source_name, diff })
}

async fn latest_id(client: &Client) -> Result<u64, Fault> {
    let query = "SELECT coalesce(max(id), 0)::bigint FROM revisions";
    Ok(client.query_one(query, &[]).await?.try_get::<_, i64>(0)? as u64)
}

/// Puts transactions of all nodes in order, until this one ends.
async fn lock(change: &Transaction<'_>, what: i32) -> Result<(), Fault> {
    change.execute("SELECT pg_advisory_xact_lock($1::int, $2::int)", &[&LOCKS, &what]).await?;
    Ok(())
}

fn revision(row: &Row) -> Result<Revision, StoreError> {
    let diff: Option<String> = get(row, 7)?;
    Ok(Revision {
        id: get::<i64>(row, 0)? as u64,
        created_ms: get::<i64>(row, 1)? as u64,
        author: get(row, 2)?,
        message: get(row, 3)?,
        spec: get::<String>(row, 4)?.into(),
        source: get::<String>(row, 5)?.into(),
        source_name: get(row, 6)?,
        diff: diff.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
    })
}

/// A column; someone may have changed the tables.
fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    at: usize,
) -> Result<T, StoreError> {
    row.try_get(at).map_err(|error| StoreError::Failed(reason(&error)))
}

/// Where a list that goes downwards from `before` ends.
fn end(before: Option<u64>) -> i64 {
    before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX)
}
