//! `sluice keys put|revoke|list`: API keys in Redis. Only their hashes are stored; gateways notice
//! at once what is changed here.

mod servers;

use std::{
    io::Read,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};
use contract::snapshot::{REDIS_USED, is_redis_item, is_redis_word};
use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use self::servers::Servers;
use super::keys::new_key;
use super::{Failure, color, exit, offline, table::Table};
use crate::records::date;

#[derive(Debug, Subcommand)]
pub enum RedisKeys {
    /// Make a new API key, store it in Redis, and print it once
    #[command(
        after_help = "Examples:\n  sluice keys put --redis redis://localhost --consumer acme\n  sluice keys put --redis redis://localhost --consumer acme --scopes read,write --expires 90d\n\nOnly its hash is stored: a key that was lost cannot be shown again. To rotate one, make another, let\nboth live for a while, then revoke the old one."
    )]
    Put(Put),
    /// Revoke an API key in Redis, on all gateways within a second
    #[command(
        after_help = "Examples:\n  sluice keys revoke --redis redis://localhost slk_…\n  sluice keys revoke --redis redis://localhost 9f86d081884c7d65…     its SHA-256, as listed\n  pass show acme/key | sluice keys revoke --redis redis://localhost -"
    )]
    Revoke(Revoke),
    /// List the API keys in Redis
    #[command(after_help = "Example:\n  sluice keys list --redis redis://localhost --json")]
    List(List),
}

/// Where the keys are.
#[derive(Debug, Args)]
pub struct Place {
    /// Where Redis is, redis://[user:password@]host[:port][/database], or rediss:// for TLS; several
    /// as in the spec
    #[arg(
        long,
        value_name = "URL",
        required = true,
        value_delimiter = ',',
        env = "SLUICE_REDIS",
        hide_env_values = true
    )]
    redis: Vec<String>,
    /// They are nodes of a Redis Cluster
    #[arg(long)]
    cluster: bool,
    /// Whom Redis' certificate must come from (PEM) [default: the system's roots]
    #[arg(long, value_name = "FILE")]
    redis_ca: Option<PathBuf>,
    /// What the names of records begin with, as in the spec
    #[arg(long, value_name = "TEXT", default_value = "sluice:key:")]
    key_prefix: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct Put {
    /// Whose key it is; the spec need not know of it
    #[arg(long, value_name = "NAME", value_parser = word)]
    consumer: String,
    /// What it may do, in place of what the consumer may
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = item)]
    scopes: Option<Vec<String>>,
    /// Groups of the caller, in place of the consumer's
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = item)]
    groups: Option<Vec<String>>,
    /// Name of a limit policy, in place of the consumer's
    #[arg(long, value_name = "NAME", value_parser = word)]
    limits: Option<String>,
    /// How long it is good for, such as 12h or 90d [default: for good]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    expires: Option<Duration>,
    /// What the key begins with, for people to know it by
    #[arg(long, value_name = "TEXT", default_value = "slk", value_parser = prefix)]
    prefix: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub struct Revoke {
    /// The key, or its SHA-256 in hexadecimal; - reads it from the standard input
    #[arg(value_name = "KEY-OR-SHA256")]
    key: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    place: Place,
}

impl RedisKeys {
    pub fn run(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match self {
                RedisKeys::Put(put) => put.run().await,
                RedisKeys::Revoke(revoke) => revoke.run().await,
                RedisKeys::List(list) => list.run().await,
            }
        })
    }
}

impl Place {
    async fn connect(&self) -> Result<Servers, Failure> {
        Servers::connect(&self.redis, self.cluster, self.redis_ca.as_deref()).await
    }

    fn record(&self, digest: &str) -> String {
        format!("{}{digest}", self.key_prefix)
    }
}

impl Put {
    async fn run(self) -> Result<(), Failure> {
        let servers = self.place.connect().await?;
        let (key, shown) = new_key(&self.prefix)?;
        let digest = HEXLOWER.encode(digest(&SHA256, key.as_bytes()).as_ref());
        let expires_ms = self.expires.map(|life| now_ms().saturating_add(millis(life)));
        let mut record = Map::new();
        record.insert("consumer".into(), self.consumer.clone().into());
        let lists = [("groups", &self.groups), ("scopes", &self.scopes)];
        for (name, list) in lists {
            if let Some(list) = list {
                let kept = list.iter().filter(|text| !text.is_empty()).cloned();
                record.insert(name.into(), kept.collect::<Vec<String>>().into());
            }
        }
        if let Some(limits) = &self.limits {
            record.insert("limits".into(), limits.clone().into());
        }
        if let Some(expires_ms) = expires_ms {
            record.insert("expires_ms".into(), expires_ms.into());
        }
        record.insert("prefix".into(), shown.clone().into());
        let text = Value::Object(record).to_string();
        servers.put(&self.place.record(&digest), &text, self.expires.map(millis)).await?;
        if self.place.json {
            offline::print_json(&json!({
                "key": key,
                "sha256": digest,
                "prefix": shown,
                "consumer": self.consumer,
                "expires_ms": expires_ms,
            }));
        } else {
            let end =
                expires_ms.map_or("for good".into(), |at_ms| format!("until {}", time(at_ms)));
            eprintln!("A key for {}, {end}. It is shown this once:", self.consumer);
            offline::print_text(&format!("{key}\n"));
        }
        Ok(())
    }
}

impl Revoke {
    async fn run(self) -> Result<(), Failure> {
        let key = match &*self.key {
            "-" => {
                let mut text = String::new();
                std::io::stdin().take(4_096).read_to_string(&mut text)?;
                text.trim().to_owned()
            }
            key => key.to_owned(),
        };
        let is_digest = key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let digest = match is_digest {
            true => key.to_ascii_lowercase(),
            false => HEXLOWER.encode(digest(&SHA256, key.as_bytes()).as_ref()),
        };
        let servers = self.place.connect().await?;
        let was_there = servers.delete(&self.place.record(&digest)).await?;
        servers.delete(&format!("{REDIS_USED}{digest}")).await?;
        if self.place.json {
            offline::print_json(&json!({ "sha256": digest, "revoked": was_there }));
        }
        match (was_there, self.place.json) {
            (false, _) => Err(Failure::new(exit::FAILURE, format!("there is no key {digest}"))),
            (true, true) => Ok(()),
            (true, false) => {
                offline::print_text(&format!("revoked {digest}\n"));
                Ok(())
            }
        }
    }
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        let servers = self.place.connect().await?;
        let mut rows = Vec::new();
        for key in servers.keys(&self.place.key_prefix).await? {
            let Some(digest) = key.strip_prefix(&self.place.key_prefix) else { continue };
            if digest.len() != 64 {
                continue;
            }
            // Gone in the meantime: it is no key any more.
            let Some(text) = servers.get(&key).await? else { continue };
            let used = servers.get(&format!("{REDIS_USED}{digest}")).await?;
            rows.push(Row::read(digest, &text, used.as_deref()));
        }
        rows.sort_by(|one, two| (&one.consumer, &one.digest).cmp(&(&two.consumer, &two.digest)));
        if self.place.json {
            offline::print_json(&rows.iter().map(Row::json).collect::<Vec<Value>>());
            return Ok(());
        }
        if rows.is_empty() {
            offline::print_text("no keys\n");
            return Ok(());
        }
        let head = ["PREFIX", "CONSUMER", "EXPIRES (UTC)", "LAST USED (UTC)", "SHA-256"];
        let mut table = Table::new(&head);
        for row in &rows {
            let expires = row.expires_ms.map_or("never".into(), time);
            let used = row.used_s.map_or("-".into(), |used_s| time(used_s * 1_000));
            let consumer = row.consumer.clone().unwrap_or_else(|| "(unfit record)".into());
            table.row([row.prefix.clone(), consumer, expires, used, row.digest.clone()]);
        }
        offline::print_text(&table.render(color(&std::io::stdout())));
        Ok(())
    }
}

/// What is told of a key.
struct Row {
    digest: String,
    prefix: String,
    /// `None`: the record does not say.
    consumer: Option<String>,
    expires_ms: Option<u64>,
    used_s: Option<u64>,
}

impl Row {
    fn read(digest: &str, record: &str, used: Option<&str>) -> Row {
        let record: Value = serde_json::from_str(record).unwrap_or_default();
        let text = |name: &str| record.get(name).and_then(Value::as_str).map(str::to_owned);
        Row {
            digest: digest.into(),
            prefix: text("prefix").unwrap_or_default(),
            consumer: text("consumer"),
            expires_ms: record.get("expires_ms").and_then(Value::as_u64),
            used_s: used.and_then(|used| used.parse().ok()),
        }
    }

    fn json(&self) -> Value {
        json!({
            "sha256": self.digest,
            "prefix": self.prefix,
            "consumer": self.consumer,
            "expires_ms": self.expires_ms,
            "last_used_s": self.used_s,
        })
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(millis).unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn time(at_ms: u64) -> String {
    date(at_ms / 1_000)
}

fn word(text: &str) -> Result<String, &'static str> {
    is_redis_word(text).then(|| text.into()).ok_or("1 to 256 characters, none of them control ones")
}

/// Or nothing, for an empty list.
fn item(text: &str) -> Result<String, &'static str> {
    let is_fit = text.is_empty() || is_redis_item(text);
    is_fit.then(|| text.into()).ok_or("1 to 256 characters, without spaces and commas")
}

fn prefix(text: &str) -> Result<String, &'static str> {
    let is_fit = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    is_fit.then(|| text.into()).ok_or("1 to 16 letters and digits")
}

fn lifetime(text: &str) -> Result<Duration, &'static str> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| "expected a number and a unit, such as 90d")?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 24 * 3_600,
        "w" => 7 * 24 * 3_600,
        _ => return Err("the unit must be s, m, h, d or w"),
    };
    match number.checked_mul(seconds).filter(|s| (1..=100 * 366 * 24 * 3_600).contains(s)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err("between a second and a hundred years"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        assert_eq!(lifetime("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(lifetime("2w"), Ok(Duration::from_secs(14 * 86_400)));
        for wrong in ["", "d", "0d", "5", "5y", "-1d", "99999999999999999999d", "9999999w"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rows_tell_what_there_is() {
        let row =
            Row::read("ab", r#"{"consumer":"acme","expires_ms":5,"prefix":"slk_ab"}"#, Some("7"));
        assert_eq!(
            (row.consumer.as_deref(), row.expires_ms, &*row.prefix, row.used_s),
            (Some("acme"), Some(5), "slk_ab", Some(7))
        );
        let row = Row::read("ab", "nonsense", None);
        assert_eq!((row.consumer, row.expires_ms, row.used_s), (None, None, None));
    }
}
