//! The command line.

mod admin;
mod cache;
mod change;
mod cluster;
mod entity;
mod export;
mod import;
pub(crate) mod keys;
mod keys_redis;
mod manual;
mod offline;
mod remote;
mod rollout;
mod show;
pub(crate) mod table;

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

pub use offline::Source;

use crate::{entry::EngineEntry, place::StateDirectory, run, supervise};

/// Exit codes, the same for every command.
pub mod exit {
    /// The command failed.
    pub const FAILURE: u8 = 1;
    /// The spec or the command line is wrong.
    pub const BAD_SPEC: u8 = 2;
    /// Control, or Redis, does not answer.
    pub const UNREACHABLE: u8 = 3;
    /// `diff --exit-code`: the spec differs from the running one.
    pub const DIFFERS: u8 = 4;
}

/// An API gateway on io_uring: one shard per CPU, configuration changed live.
#[derive(Debug, Parser)]
#[command(
    name = "sluice",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start here:\n  sluice up --demo              run a gateway with a demo origin on :8080\n  sluice check gateway.yaml     check a spec, offline\n  sluice up -f gateway.yaml     run it\n  sluice apply -f gateway.yaml  change it while it runs\n\nExit codes: 0 ok · 1 failure · 2 bad spec or usage · 3 control cannot be reached · 4 differs (diff --exit-code)"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway: supervisor, control and one engine shard per CPU
    #[command(
        after_help = "Examples:\n  sluice up --demo\n  sluice up -f gateway.yaml --shards 2\n  sluice up -f gateway.yaml --secret-command vault\n  sluice up                     the latest revision in the state directory\n\nCtrl-C drains and stops; a second one stops at once."
    )]
    Up(Up),
    /// Check a spec and report every problem, offline
    #[command(
        after_help = "Examples:\n  sluice check gateway.yaml\n  sluice check - < gateway.yaml\n  sluice check --json gateway.yaml"
    )]
    Check {
        /// The spec (YAML or JSON); - reads the standard input
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the spec
    #[command(after_help = "Example:\n  sluice schema > sluice.schema.json")]
    Schema {
        /// Accepted everywhere; the schema is JSON anyway
        #[arg(long, hide = true)]
        json: bool,
    },
    /// Check a spec, show what it changes, ask, and make it the running one, live
    #[command(
        after_help = "Examples:\n  sluice apply -f gateway.yaml -m 'canary to 20 %'\n  sluice apply -f gateway.yaml --dry-run\n  sluice apply -f gateway.yaml --yes     in scripts and pipelines\n  sluice apply -f gateway.yaml --canary 1 --watch 5m     on one node first, then on all or on none\n\nWithout a terminal to ask on --yes must be there; otherwise it exits with 2 and changes nothing.\nWhat was shown is what is applied: a change of somebody else's meanwhile is an error."
    )]
    Apply {
        /// The spec (YAML or JSON); - reads the standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Why, for the list of revisions
        #[arg(short, long, default_value = "", hide_default_value = true)]
        message: String,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
        /// Wait until every other node of the store serves it, too, for so long at most
        #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with_all = ["dry_run", "canary"])]
        wait_cluster: Option<Duration>,
        #[command(flatten)]
        trial: rollout::Trial,
        #[command(flatten)]
        consent: change::Consent,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show, promote or abort the trial of a revision on some nodes (`sluice apply --canary`)
    #[command(
        after_help = "Examples:\n  sluice rollout\n  sluice rollout --json | jq .canaries.p99_us\n  sluice rollout promote\n  sluice rollout abort -m 'customers complain'",
        args_conflicts_with_subcommands = true
    )]
    Rollout {
        #[command(subcommand)]
        command: Option<rollout::Command>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show how a spec differs from the running one
    #[command(
        after_help = "Examples:\n  sluice diff -f gateway.yaml\n  sluice diff -f gateway.yaml --exit-code || echo 'drift, or worse'\n\nExit codes with --exit-code: 0 the same · 4 differs · others as everywhere (1 failure · 2 bad spec or\nusage · 3 control cannot be reached)"
    )]
    Diff {
        /// The spec (YAML or JSON); - reads the standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Exit with 4 if there is a difference, with 0 if there is none
        #[arg(long)]
        exit_code: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// List what is running
    #[command(
        after_help = "Examples:\n  sluice get routes\n  sluice get limits --consumer acme\n  sluice get spec --json\n  sluice get revisions"
    )]
    Get {
        /// What to list; `spec` prints the running spec as it was written
        #[arg(value_enum)]
        what: What,
        /// Of limits only those that count by this consumer
        #[arg(long, value_name = "NAME")]
        consumer: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show epoch, adoption per shard and health
    #[command(
        after_help = "Examples:\n  sluice status\n  sluice status --json | jq .converged\n  sluice status --state /var/lib/sluice\n  sluice status --cluster       every node of the store"
    )]
    Status {
        /// Every node that shares the store: its revision, and how long it took
        #[arg(long)]
        cluster: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Say which route a request takes, and why not the others
    #[command(
        after_help = "Examples:\n  sluice explain GET http://localhost:8080/users/7\n  sluice explain POST http://api.example.com/orders -H 'X-Canary: 1'\n  sluice explain GET /orders --consumer acme     with the limits that acme meets\n  sluice explain GET /orders --consumer acme --api-key acme_Yq3x      and those of that key\n  sluice explain GET /users -f gateway.yaml      offline, from a file"
    )]
    Explain {
        /// GET, POST, …
        method: String,
        /// http://host/path?query, or just a path
        url: String,
        /// A request header; may be repeated
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
        headers: Vec<(String, String)>,
        /// With the limits of this consumer; credentials are not looked at
        #[arg(long, value_name = "NAME")]
        consumer: Option<String>,
        /// With the limits of this key of the consumer in the spec: its prefix, or how its hash begins
        #[arg(long, value_name = "NAME", requires = "consumer")]
        api_key: Option<String>,
        /// Explain with this spec, offline, instead of the running one
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Show every route that does not match
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show what an earlier revision would change, ask, and run it again
    #[command(
        after_help = "Examples:\n  sluice rollback          the one before the running one\n  sluice rollback 3\n  sluice rollback --yes    in scripts and pipelines\n\nA rollback is a new revision with the old text."
    )]
    Rollback {
        /// Revision to run again; without it, the one before the running one
        revision: Option<u64>,
        #[command(flatten)]
        consent: change::Consent,
        #[command(flatten)]
        remote: Remote,
    },
    /// Write the running spec, or an earlier one, as a file that can be applied again
    #[command(
        after_help = "Examples:\n  sluice export > gateway.yaml\n  sluice export --format json -o gateway.json\n  sluice export --revision 3\n  sluice export --redacted                 for eyes only: it cannot be applied as it is\n  sluice export --offline --state /var/lib/sluice -o gateway.yaml\n\nSecrets by reference (file, env, command) stay references. Secrets that stand in the spec, and hashes of\npasswords, are told by no running gateway: if there are any, export names their fields and exits with 1.\n--offline reads the state directory's store instead and has them; keep what it writes to yourself."
    )]
    Export(export::Export),
    /// Make a spec out of another's configuration: OpenAPI, Kong, nginx
    #[command(
        arg_required_else_help = true,
        after_help = "Examples:\n  sluice import openapi petstore.yaml -o gateway.yaml\n  sluice import kong kong.yaml | sluice check -\n  sluice import nginx /etc/nginx/nginx.conf > gateway.yaml\n\nWhat it prints passes `sluice check`. What has no counterpart is told with its line, on the standard\nerror and in comments at the top: nothing is lost silently."
    )]
    Import {
        #[command(subcommand)]
        command: import::Import,
    },
    /// Print what completes commands in a shell
    #[command(
        after_help = "Examples:\n  sluice completions bash > ~/.local/share/bash-completion/completions/sluice\n  sluice completions zsh > ~/.zfunc/_sluice     with fpath+=~/.zfunc before compinit\n  sluice completions fish > ~/.config/fish/completions/sluice.fish"
    )]
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands
    #[command(
        after_help = "Examples:\n  sluice man | man -l -\n  sluice man apply | man -l -\n  sluice man --dir /usr/local/share/man/man1"
    )]
    Man {
        /// A command, such as apply; without it sluice itself
        #[arg(conflicts_with = "dir")]
        page: Option<String>,
        /// Write the pages of all commands into this directory
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Make API keys for the spec or Redis, and revoke and list those in Redis
    #[command(
        arg_required_else_help = true,
        after_help = "Examples:\n  sluice keys new\n  sluice keys new --prefix acme --json\n  sluice keys hash < key.txt\n  sluice keys put --redis redis://localhost --consumer acme"
    )]
    Keys {
        #[command(subcommand)]
        command: keys::Keys,
    },
    /// Hash a password for HTTP Basic
    #[command(
        arg_required_else_help = true,
        after_help = "Example:\n  sluice password hash < password.txt"
    )]
    Password {
        #[command(subcommand)]
        command: keys::Passwords,
    },
    /// List, show, put, change and delete single things of the running spec
    #[command(
        arg_required_else_help = true,
        after_help = "Examples:\n  sluice entity list routes\n  sluice entity get upstreams users > users.json\n  sluice entity put upstreams users -f users.json\n  sluice entity patch routes checkout '{\"workspace\": \"shop\"}'\n  sluice entity delete consumers acme --dry-run\n  sluice entity new-key acme"
    )]
    Entity {
        #[command(subcommand)]
        command: entity::Entities,
    },
    /// Say which requests a spec would route or refuse, differently than now
    #[command(
        after_help = "Examples:\n  sluice try -f gateway.yaml                    with the last requests that were served\n  sluice try -f gateway.yaml --url 'GET http://api.example.com/users/7'"
    )]
    Try(entity::Try),
    /// Show who changed what, and who was refused
    #[command(
        after_help = "Examples:\n  sluice audit\n  sluice audit --verify      whether the chain of hashes is whole\n  sluice audit --json --limit 1000"
    )]
    Audit(entity::Audit),
    /// Print the OpenAPI 3.1 document of the admin API
    #[command(after_help = "Example:\n  sluice openapi > sluice.openapi.json")]
    Openapi {
        /// Accepted everywhere; the document is JSON anyway
        #[arg(long, hide = true)]
        json: bool,
    },
    /// Have answers go that the response cache keeps
    #[command(
        arg_required_else_help = true,
        after_help = "Examples:\n  sluice cache purge --tag product-7\n  sluice cache purge --route shop --prefix /products/\n  sluice cache purge --path /products/7 --host api.example.com\n  sluice cache purge --all\n  sluice get cache     what is kept\n\nOf several words all must be true of an answer. Each node has a cache of its own: ask each node's\nadmin API (--admin)."
    )]
    Cache {
        #[command(subcommand)]
        command: cache::Command,
    },
    /// Print the Prometheus metrics
    #[command(
        after_help = "Examples:\n  sluice metrics | grep sluice_requests_total\n  sluice metrics --json"
    )]
    Metrics {
        #[command(flatten)]
        remote: Remote,
    },
    #[command(hide = true)]
    RunControl(run::Inherited),
    #[command(hide = true)]
    RunEngine(supervise::EngineInherited),
    #[command(hide = true)]
    RunJq,
    #[command(hide = true)]
    RunDemoOrigin(supervise::DemoInherited),
}

/// `sluice up`.
#[derive(Clone, Debug, Args)]
pub struct Up {
    /// The spec to run (YAML or JSON); without it, the latest revision in the state directory
    #[arg(short, long, value_name = "FILE", conflicts_with = "demo")]
    pub file: Option<PathBuf>,
    /// Run a demo origin and a demo spec
    #[arg(long)]
    pub demo: bool,
    /// Engine shards; one per CPU by default
    #[arg(long, value_name = "N", conflicts_with = "cpus")]
    pub shards: Option<usize>,
    /// CPUs to run on, one shard each
    #[arg(long, value_name = "0,1", value_delimiter = ',')]
    pub cpus: Vec<usize>,
    /// Where revisions and the access log are kept [default: $XDG_STATE_HOME/sluice or
    /// ~/.local/state/sluice]
    #[arg(long, value_name = "DIR", env = "SLUICE_STATE")]
    pub state: Option<PathBuf>,
    /// Keep revisions in PostgreSQL, for many nodes: postgres://USER@HOST/DATABASE?sslmode=verify-full;
    /// the password may be in PGPASSWORD or the file PGPASSFILE [default: SQLite in the state
    /// directory]
    #[arg(long, value_name = "URL", env = "SLUICE_STORE", hide_env_values = true)]
    pub store: Option<String>,
    /// What this node is called among those of the store [default: the host's name and a suffix]
    #[arg(long, value_name = "NAME", env = "SLUICE_NODE")]
    pub node: Option<String>,
    /// Longest wait for requests in flight when stopping, such as 30s [default: the spec's]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub drain_timeout: Option<Duration>,
    /// A program that secrets of the spec may be asked of ({command: [PROGRAM, …]}), as specs call it;
    /// may be repeated. Without it none is run, as specs can come over the network
    #[arg(
        long = "secret-command",
        value_name = "PROGRAM",
        value_delimiter = ',',
        env = "SLUICE_SECRET_COMMANDS"
    )]
    pub secret_commands: Vec<String>,
}

/// Where the control process is, and how to print.
#[derive(Clone, Debug, Args)]
pub struct Remote {
    /// Address of the admin API, or its URL: https://HOST:PORT [default: found in the state
    /// directory, else 127.0.0.1:9901]
    #[arg(long, value_name = "ADDR", env = "SLUICE_ADMIN", value_parser = admin::admin_url)]
    pub admin: Option<String>,
    /// Token for it [default: the one in the state directory]
    #[arg(long, value_name = "TOKEN", env = "SLUICE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Issuers of its certificate (PEM) [default: the system's]
    #[arg(long, value_name = "FILE", env = "SLUICE_CA")]
    pub ca: Option<PathBuf>,
    /// Client certificate to show it (PEM)
    #[arg(long, value_name = "FILE", env = "SLUICE_CERT", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Private key of the client certificate (PEM)
    #[arg(long, value_name = "FILE", env = "SLUICE_KEY", requires = "cert")]
    pub key: Option<PathBuf>,
    /// State directory of the gateway
    #[arg(long, value_name = "DIR", env = "SLUICE_STATE")]
    pub state: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    Routes,
    Upstreams,
    Listeners,
    Certificates,
    Authenticators,
    Consumers,
    /// API keys of the spec, and when each was used last; of those in Redis: `sluice keys list`
    Keys,
    Limits,
    /// What the response cache of this node keeps
    Cache,
    Revisions,
    Spec,
}

/// Parses the command line and does what it says.
pub fn main(engine: EngineEntry) -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up(up) => supervise::up(&up, &engine),
        Command::RunControl(inherited) => run::control(inherited, engine),
        Command::RunEngine(inherited) => supervise::run_engine(inherited, &engine),
        Command::RunJq => {
            (engine.jq)();
            Ok(())
        }
        Command::RunDemoOrigin(inherited) => supervise::run_demo_origin(inherited),
        Command::Check { file, json } => offline::check(&file, json, &engine),
        Command::Schema { .. } => offline::schema(),
        Command::Apply { file, message, dry_run, wait_cluster, trial, consent, remote } => {
            let how = change::How { dry_run, consent, wait_cluster, trial };
            change::apply(&file, &message, how, &remote, &engine)
        }
        Command::Rollout { command, remote } => rollout::rollout(command, &remote),
        Command::Diff { file, exit_code, remote } => {
            change::diff(&file, exit_code, &remote, &engine)
        }
        Command::Get { what, consumer, remote } => remote::get(what, consumer.as_deref(), &remote),
        Command::Status { cluster: true, remote } => cluster::status(&remote),
        Command::Status { cluster: false, remote } => remote::status(&remote),
        Command::Explain { method, url, headers, consumer, api_key, file, all, remote } => {
            let question = crate::explain::Question::new(&method, &url, headers)
                .map(|question| crate::explain::Question { consumer, key: api_key, ..question })
                .map_err(|problem| Failure::new(exit::BAD_SPEC, problem));
            question.and_then(|question| match file {
                Some(file) => offline::explain(&file, &question, all, remote.json, &engine),
                None => remote::explain(&question, all, &remote),
            })
        }
        Command::Rollback { revision, consent, remote } => {
            change::rollback(revision, consent, &remote)
        }
        Command::Export(command) => command.run(),
        Command::Import { command } => command.run(),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { page, dir } => manual::pages(page.as_deref(), dir.as_deref()),
        Command::Keys { command } => keys::keys(command),
        Command::Password { command } => keys::passwords(&command),
        Command::Entity { command } => command.run(),
        Command::Try(command) => command.run(),
        Command::Audit(command) => command.run(),
        Command::Openapi { .. } => {
            offline::print_json(&crate::api::openapi::document());
            Ok(())
        }
        Command::Cache { command } => cache::cache(command),
        Command::Metrics { remote } => remote::metrics(&remote),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("sluice: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Why a command did not do its work.
#[derive(Debug)]
pub struct Failure {
    /// One of [`exit`].
    pub code: u8,
    /// What happened and what to do; empty when it has been printed already.
    pub message: String,
}

impl Failure {
    pub fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }
}

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Failure {
        // With `#`, anyhow prints the causes, too.
        Failure::new(exit::FAILURE, format!("{error:#}"))
    }
}

/// Whether to colour what goes to `stream` (`NO_COLOR` of no-color.org is honoured).
pub fn color(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The state directory `given` on the command line, or the default one.
pub fn state_directory(given: Option<&PathBuf>) -> StateDirectory {
    given.map_or_else(StateDirectory::standard, |path| StateDirectory::at(path))
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("a header name has no spaces".into());
    }
    Ok((name.into(), value.trim().into()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| "expected a number and a unit, such as 30s")?;
    let ms = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("the unit must be ms, s, m or h".into()),
    };
    Ok(Duration::from_millis(number.saturating_mul(ms)))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_and_headers() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("s").is_err());
        assert!(duration("5d").is_err());
        assert_eq!(header("X-A:  b: c "), Ok(("X-A".into(), "b: c".into())));
        assert!(header("nothing").is_err());
        assert!(header("a b: c").is_err());
    }

    #[test]
    fn up_refuses_a_file_with_the_demo() {
        assert!(Cli::try_parse_from(["sluice", "up", "--demo", "-f", "x"]).is_err());
        assert!(Cli::try_parse_from(["sluice", "up", "--shards", "1", "--cpus", "0"]).is_err());
    }
}
