//! Single things of the running spec, trying specs out, and the audit log.

use std::{io::Read, path::PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Failure, Remote,
    admin::Admin,
    color, exit,
    offline::{Source, print_json, print_text},
    table::Table,
};
use crate::{
    api::model::{Applied, KeyMade, TryAnswer},
    explain::Question,
    records::date,
    store::{AuditEntry, AuditVerdict},
};

/// Largest thing read from a file, in bytes.
const MAX_INPUT: u64 = crate::spec::MAX_BYTES as u64;

#[derive(Debug, Subcommand)]
pub enum Entities {
    /// List the names of all of a kind, as JSON with all they say
    List {
        #[arg(value_enum)]
        kind: Kind,
        /// Only those whose names begin so
        #[arg(long)]
        prefix: Option<String>,
        /// Only those of this workspace
        #[arg(long)]
        workspace: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show one, without secrets
    Get {
        #[arg(value_enum)]
        kind: Kind,
        name: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Add one, or replace it
    Put {
        #[arg(value_enum)]
        kind: Kind,
        name: String,
        /// What it is, as JSON; - reads the standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        remote: Remote,
    },
    /// Change some of its fields (RFC 7396)
    Patch {
        #[arg(value_enum)]
        kind: Kind,
        name: String,
        /// What changes, as JSON; null takes away
        patch: String,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        remote: Remote,
    },
    /// Remove one
    Delete {
        #[arg(value_enum)]
        kind: Kind,
        name: String,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        remote: Remote,
    },
    /// Make an API key for a consumer of the spec, and print it, once
    NewKey {
        consumer: String,
        /// What the key begins with
        #[arg(long, default_value = "slk")]
        prefix: String,
        /// When it ends, such as 2027-01-01
        #[arg(long)]
        expires: Option<String>,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        remote: Remote,
    },
    /// Remove an API key of a consumer of the spec
    DeleteKey {
        consumer: String,
        /// SHA-256 of the key; `sluice get keys` lists them
        sha256: String,
        #[command(flatten)]
        how: How,
        #[command(flatten)]
        remote: Remote,
    },
}

/// How a change is made.
#[derive(Clone, Debug, Args)]
pub struct How {
    /// Why, for the list of revisions
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Only if it is as it was read, by the ETag of then
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Kind {
    Authenticators,
    Groups,
    Consumers,
    Limits,
    Listeners,
    Upstreams,
    Routes,
}

impl Kind {
    fn path(self) -> String {
        // Their words in lower case are those of the spec.
        format!("/v1/spec/{}", format!("{self:?}").to_lowercase())
    }
}

impl How {
    fn send(
        &self,
        remote: &Remote,
        (method, path): (&str, &str),
        body: &str,
    ) -> Result<String, Failure> {
        let author = author();
        let mut query = vec![("author", &*author)];
        if !self.message.is_empty() {
            query.push(("message", &self.message));
        }
        if self.dry_run {
            query.push(("dry_run", "true"));
        }
        let mut fields = vec![("content-type", "application/json")];
        let tag = self.if_match.as_deref().map(|tag| match tag.starts_with(['"', '*']) {
            true => tag.to_owned(),
            false => format!("\"{tag}\""),
        });
        fields.extend(tag.as_deref().map(|tag| ("if-match", tag)));
        Ok(Admin::new(remote)?.send(method, path, &query, &fields, body)?.text)
    }

    fn change(
        &self,
        remote: &Remote,
        (method, path): (&str, String),
        body: &str,
    ) -> Result<(), Failure> {
        let text = self.send(remote, (method, &path), body)?;
        let applied: Applied = serde_json::from_str(&text)?;
        match remote.json {
            true => print_json(&applied),
            false => {
                print_text(&super::show::applied(&applied, true, super::color(&std::io::stdout())))
            }
        }
        Ok(())
    }
}

impl Entities {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Entities::List { kind, prefix, workspace, remote } => {
                let mut query = vec![("limit", "1000")];
                query.extend(prefix.as_deref().map(|prefix| ("prefix", prefix)));
                query.extend(workspace.as_deref().map(|workspace| ("workspace", workspace)));
                let rows: Vec<Value> = pages(&remote, &kind.path(), &query, usize::MAX)?;
                if remote.json {
                    print_json(&rows);
                } else {
                    let name = |row: &Value| row["name"].as_str().unwrap_or_default().to_owned();
                    print_text(
                        &rows.iter().map(|row| format!("{}\n", name(row))).collect::<String>(),
                    );
                }
                Ok(())
            }
            Entities::Get { kind, name, remote } => {
                let path = format!("{}/{name}", kind.path());
                let answer = Admin::new(&remote)?.send("GET", &path, &[], &[], "")?;
                print_json(&serde_json::from_str::<Value>(&answer.text)?);
                if let Some(tag) = answer.etag.filter(|_| !remote.json) {
                    eprintln!("etag {tag}");
                }
                Ok(())
            }
            Entities::Put { kind, name, file, how, remote } => {
                how.change(&remote, ("PUT", format!("{}/{name}", kind.path())), &input(&file)?)
            }
            Entities::Patch { kind, name, patch, how, remote } => {
                how.change(&remote, ("PATCH", format!("{}/{name}", kind.path())), &patch)
            }
            Entities::Delete { kind, name, how, remote } => {
                how.change(&remote, ("DELETE", format!("{}/{name}", kind.path())), "")
            }
            Entities::DeleteKey { consumer, sha256, how, remote } => {
                let path = format!("/v1/spec/consumers/{consumer}/keys/{sha256}");
                how.change(&remote, ("DELETE", path), "")
            }
            Entities::NewKey { consumer, prefix, expires, how, remote } => {
                let path = format!("/v1/spec/consumers/{consumer}/keys");
                let mut wish = json!({ "prefix": prefix });
                if let Some(expires) = expires {
                    wish["expires"] = expires.into();
                }
                let text = how.send(&remote, ("POST", &path), &wish.to_string())?;
                let made: KeyMade = serde_json::from_str(&text)?;
                match (&made.key, remote.json) {
                    (_, true) => print_json(&made),
                    (Some(key), false) => print_text(&format!(
                        "key     {key}\nsha256  {}\nprefix  {}\n\nThe key is shown this once. It works \
                         since revision {}.\n",
                        made.sha256, made.prefix, made.applied.revision
                    )),
                    (None, false) => print_text(&super::show::applied(
                        &made.applied,
                        true,
                        super::color(&std::io::stdout()),
                    )),
                }
                Ok(())
            }
        }
    }
}

/// `sluice try`.
#[derive(Debug, Args)]
pub struct Try {
    /// The spec (YAML or JSON); - reads the standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// A request to try, as 'METHOD URL'; may be repeated. Without any: the last that were served
    #[arg(long = "url", value_name = "REQUEST", value_parser = request)]
    requests: Vec<Question>,
    /// Show also the requests for which nothing changes
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    remote: Remote,
}

fn request(text: &str) -> Result<Question, String> {
    let (method, url) = text.split_once(' ').ok_or("expected METHOD URL, such as GET /users")?;
    Question::new(method, url.trim(), Vec::new()).map_err(Into::into)
}

impl Try {
    pub fn run(self) -> Result<(), Failure> {
        let Try { file, requests, all, remote } = self;
        let source = Source::read(&file)?;
        let loaded = crate::spec::load_bytes(&source.name, &source.bytes);
        let text = crate::spec::rooted_text(&source.text(), &loaded, &source.directory);
        let mut order = json!({ "spec": text, "all": all });
        if !requests.is_empty() {
            order["requests"] = serde_json::to_value(&requests)?;
        }
        let fields = [("content-type", "application/json")];
        let answer =
            Admin::new(&remote)?.send("POST", "/v1/try", &[], &fields, &order.to_string())?;
        let answer: TryAnswer = serde_json::from_str(&answer.text)?;
        if remote.json {
            print_json(&answer);
            return Ok(());
        }
        let mut text = String::new();
        if !answer.requests.is_empty() {
            let mut table = Table::new(&["REQUEST", "CHANGE", "NOW", "THEN"]);
            for one in &answer.requests {
                let course = |course: &crate::api::model::Course| {
                    course.route.clone().unwrap_or_else(|| course.result.clone())
                };
                table.row(vec![
                    format!("{} {}{}", one.method, one.host, one.path_and_query),
                    one.change.clone(),
                    course(&one.now),
                    course(&one.then),
                ]);
            }
            text.push_str(&table.render(color(&std::io::stdout())));
        }
        text.push_str(&format!(
            "{} tried against revision {}, {} different\n",
            answer.tried, answer.revision, answer.different
        ));
        if answer.left_out > 0 {
            text.push_str(&format!("note: there was no time for {} more\n", answer.left_out));
        }
        print_text(&text);
        Ok(())
    }
}

/// `sluice audit`.
#[derive(Debug, Args)]
pub struct Audit {
    /// Say whether the chain of hashes is whole; exits with 1 when it is not
    #[arg(long)]
    verify: bool,
    /// Entries at most
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    remote: Remote,
}

impl Audit {
    pub fn run(self) -> Result<(), Failure> {
        let Audit { verify, limit, remote } = self;
        if verify {
            let verdict: AuditVerdict = Admin::new(&remote)?.get("/v1/audit/verdict")?;
            match (&verdict.broken, remote.json) {
                (_, true) => print_json(&verdict),
                (None, false) => print_text(&format!(
                    "the chain of {} entries is whole; its last hash is {}\n",
                    verdict.entries, verdict.head
                )),
                (Some(_), false) => {}
            }
            return match verdict.broken {
                Some(broken) => Err(Failure::new(
                    exit::FAILURE,
                    format!("the audit log was tampered with: {broken}"),
                )),
                None => Ok(()),
            };
        }
        let page = limit.clamp(1, 1_000).to_string();
        let rows: Vec<AuditEntry> = pages(&remote, "/v1/audit", &[("limit", &page)], limit)?;
        if remote.json {
            print_json(&rows);
            return Ok(());
        }
        let mut table = Table::new(&[
            "SEQ", "TIME", "ACTOR", "FROM", "ACTION", "TARGET", "REVISION", "OUTCOME",
        ]);
        for row in rows {
            table.row(vec![
                row.seq.to_string(),
                date(row.time_ms / 1_000),
                row.actor,
                row.source,
                row.action,
                row.target,
                row.revision.map_or_else(|| "-".into(), |id| id.to_string()),
                row.outcome,
            ]);
        }
        print_text(&table.render(color(&std::io::stdout())));
        Ok(())
    }
}

/// The entries of a list, page by page, `most` at most.
fn pages<T: serde::de::DeserializeOwned>(
    remote: &Remote,
    path: &str,
    query: &[(&str, &str)],
    most: usize,
) -> Result<Vec<T>, Failure> {
    let admin = Admin::new(remote)?;
    let mut rows: Vec<T> = Vec::new();
    let mut answer = admin.send("GET", path, query, &[], "")?;
    loop {
        rows.extend(serde_json::from_str::<Vec<T>>(&answer.text)?);
        let Some(next) = answer.next().filter(|_| rows.len() < most) else { break };
        answer = admin.send("GET", next, &[], &[], "")?;
    }
    rows.truncate(most);
    Ok(rows)
}

fn input(file: &std::path::Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().take(MAX_INPUT).read_to_string(&mut text),
        false => std::fs::File::open(file)
            .and_then(|file| file.take(MAX_INPUT).read_to_string(&mut text)),
    };
    read.map_err(|error| {
        Failure::new(exit::BAD_SPEC, format!("cannot read {}: {error}", file.display()))
    })?;
    Ok(text)
}

/// Who is asking, for the list of revisions.
fn author() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "unknown".into())
}
