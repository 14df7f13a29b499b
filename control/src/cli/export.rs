//! `sluice export`: a spec as a file that can be applied again.

use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Failure, Remote, admin::Admin, exit, offline::print_text, state_directory};
use crate::{
    api::model::Running,
    spec::{self, REDACTED},
    store::{Revision, offline},
    yaml::Yaml,
};

#[derive(Debug, Args)]
pub struct Export {
    /// yaml keeps the text as it was written, comments and all; json is the canonical form
    #[arg(long, value_enum, default_value = "yaml")]
    format: Format,
    /// This revision instead of the running one
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
    /// Read the state directory's store, and not a running gateway: it has the secrets, too
    #[arg(long, conflicts_with = "redacted")]
    offline: bool,
    /// Write it although secrets are missing; where they were it says "[redacted]"
    #[arg(long)]
    redacted: bool,
    /// Write to this file, which only its owner may read, instead of the standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

impl Export {
    pub fn run(self) -> Result<(), Failure> {
        let (canonical, source) = match (self.offline, self.revision) {
            (true, revision) => {
                let path = state_directory(self.remote.state.as_ref()).store();
                let found = offline::read(&path, revision)?;
                let found = found.ok_or_else(|| {
                    let what = match revision {
                        Some(id) => format!("has no revision {id}"),
                        None => "is empty".into(),
                    };
                    Failure::new(exit::FAILURE, format!("the store {} {what}", path.display()))
                })?;
                (serde_json::from_str(&found.spec)?, found.source.to_string())
            }
            (false, None) => {
                let running: Running = Admin::new(&self.remote)?.get("/v1/spec")?;
                (running.spec, running.source)
            }
            (false, Some(id)) => {
                let old: Revision =
                    Admin::new(&self.remote)?.get(&format!("/v1/revisions/{id}"))?;
                (serde_json::from_str(&old.spec)?, old.source.to_string())
            }
        };
        let missing = missing(&canonical);
        if !missing.is_empty() && !self.redacted {
            return Err(Failure::new(
                exit::FAILURE,
                format!(
                    "a running gateway does not tell secrets that stand in its spec, so this could not be \
                     applied again; missing:\n  {}\nKeep them in files, --offline reads them from the state \
                     directory's store, --redacted goes without",
                    missing.join("\n  ")
                ),
            ));
        }
        let json = self.format == Format::Json || self.remote.json;
        write(self.output.as_deref(), &text(&canonical, source, json))
    }
}

/// The file's text.
fn text(canonical: &Value, source: String, json: bool) -> String {
    if json {
        return format!("{}\n", serde_json::to_string_pretty(canonical).unwrap_or_default());
    }
    // Written as JSON, or as the canonical form where secrets could not be taken out of the text.
    let is_json = serde_json::from_str::<Value>(&source).is_ok_and(|value| value.is_object());
    let text = if is_json { Yaml::from(canonical).document() } else { source };
    if text.ends_with('\n') { text } else { text + "\n" }
}

/// The fields whose secrets are not told.
fn missing(canonical: &Value) -> Vec<String> {
    let mut fields = Vec::new();
    redacted(canonical, "", &mut fields);
    fields
}

fn redacted(value: &Value, path: &str, out: &mut Vec<String>) {
    match value {
        Value::String(text) if text == REDACTED && spec::is_secret(path) => out.push(path.into()),
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                redacted(value, &format!("{path}{dot}{name}"), out);
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                redacted(value, &format!("{path}[{at}]"), out);
            }
        }
        _ => {}
    }
}

/// Writes `text` to `file`, or prints it.
pub fn write(file: Option<&Path>, text: &str) -> Result<(), Failure> {
    let Some(file) = file else {
        print_text(text);
        return Ok(());
    };
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(file);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        Failure::new(exit::FAILURE, format!("cannot write {}: {error}", file.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "version: 1   # by hand
listeners: [{name: web, listen: ':8080'}]
upstreams: [{name: a, targets: ['a:1'], balance: {hash: {header: x-user}}}]
authenticators: [{name: signed, signature: {}}, {name: people, basic: {}}]
consumers:
  - name: one
    passwords: [{username: one, hash: 'HASH'}]
    signing_keys:
      - {id: k1, secret: {inline: plain-secret-of-32-bytes-and-more}}
      - {id: k2, secret: {file: /run/secrets/k2}}
routes: [{name: r, upstream: a, auth: {any: [signed, people]}}]
";

    fn specs() -> (Value, String) {
        let hash = "$argon2id$v=19$m=19456,t=2,p=1$BwcHBwcHBwcHBwcHBwcHBw$\
                    Yr0kSRnGDlhHnHFyL4TqbH8CDQkNlNW7OY3rPTQqDeI";
        let source = SPEC.replace("HASH", hash);
        let loaded = spec::load("t.yaml", &source);
        let spec = loaded.spec.unwrap_or_else(|| panic!("{:?}", loaded.problems));
        (serde_json::to_value(spec).unwrap(), source)
    }

    #[test]
    fn what_is_missing_is_named() {
        let (canonical, source) = specs();
        assert_eq!(missing(&canonical), [""; 0]);
        let (shown, _) = spec::redacted(&canonical.to_string(), &source);
        assert_eq!(
            missing(&shown),
            ["consumers[0].passwords[0].hash", "consumers[0].signing_keys[0].secret.inline"]
        );
    }

    #[test]
    fn every_form_reads_back_to_the_same() {
        let (canonical, source) = specs();
        assert_eq!(text(&canonical, source.clone(), false), source, "as written");
        let from_json = text(&canonical, canonical.to_string(), false);
        assert!(from_json.starts_with("version: 1\n") || from_json.contains("\nversion: 1\n"));
        for text in [from_json, text(&canonical, source, true)] {
            let loaded = spec::load("t", &text);
            let spec = loaded.spec.unwrap_or_else(|| panic!("{:?}\n{text}", loaded.problems));
            assert_eq!(serde_json::to_value(spec).unwrap(), canonical);
        }
    }
}
