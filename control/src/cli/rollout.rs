//! `sluice rollout`, and applies that are tried out on some nodes.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use clap::{Args, Subcommand};

use super::{
    Failure, Remote,
    admin::Admin,
    color, duration, exit,
    offline::{print_json, print_text},
    show::time,
    table::Table,
};
use crate::{
    api::model::Applied,
    rollout::{Canaries, Rollout, Side, Standing, State},
};

/// How often a trial is looked at.
const TICK: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub enum Command {
    /// How the trial goes, or how the last one went (the default)
    Status {
        #[command(flatten)]
        remote: Remote,
    },
    /// Let all nodes take the revision on trial
    #[command(after_help = "Example:\n  sluice rollout promote -m 'seen enough'")]
    Promote {
        #[command(flatten)]
        end: End,
        #[command(flatten)]
        remote: Remote,
    },
    /// Let all nodes go on as before the trial
    #[command(after_help = "Example:\n  sluice rollout abort -m 'customers complain'")]
    Abort {
        #[command(flatten)]
        end: End,
        #[command(flatten)]
        remote: Remote,
    },
}

#[derive(Debug, Args)]
pub struct End {
    /// Why, for the list of revisions
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
}

/// A trial on some nodes.
#[derive(Clone, Debug, Args)]
pub struct Trial {
    /// Only on some nodes of the store at first: so many (1), as many as serve a share of the traffic
    /// (10%), or these (gateway-1,gateway-2)
    #[arg(long, value_name = "NODES", value_parser = canaries)]
    canary: Option<String>,
    /// How long they are watched before all nodes take it [default: 60s]
    #[arg(long, value_name = "TIME", requires = "canary", value_parser = duration)]
    watch: Option<Duration>,
    /// Requests on either side below which nothing is judged [default: 100]
    #[arg(long, value_name = "N", requires = "canary")]
    min_requests: Option<u64>,
    /// Points of a percent by which their share of 5xx may be larger than elsewhere [default: 1]
    #[arg(long, value_name = "POINTS", requires = "canary")]
    max_errors: Option<f64>,
    /// How many times the p99 of elsewhere theirs may be [default: 2]
    #[arg(long, value_name = "FACTOR", requires = "canary")]
    max_p99_ratio: Option<f64>,
    /// Wait for the end of the trial; exit with 1 when it was rolled back
    #[arg(long, requires = "canary")]
    wait: bool,
}

fn canaries(text: &str) -> Result<String, String> {
    text.parse::<Canaries>().map(|canaries| canaries.to_string())
}

impl Trial {
    pub fn query(&self) -> Vec<(&'static str, String)> {
        let watch_s = self.watch.map(|watch| watch.as_secs().max(1).to_string());
        let given = [
            ("canary", self.canary.clone()),
            ("watch_s", watch_s),
            ("min_requests", self.min_requests.map(|one| one.to_string())),
            ("max_errors", self.max_errors.map(|one| one.to_string())),
            ("max_p99_ratio", self.max_p99_ratio.map(|one| one.to_string())),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Whether to wait for the end.
    pub fn waits(&self) -> bool {
        self.wait
    }
}

pub fn rollout(command: Option<Command>, remote: &Remote) -> Result<(), Failure> {
    let (path, end, remote) = match &command {
        None => return status(remote),
        Some(Command::Status { remote }) => return status(remote),
        Some(Command::Promote { end, remote }) => ("/v1/rollout/promote", end, remote),
        Some(Command::Abort { end, remote }) => ("/v1/rollout/abort", end, remote),
    };
    let author = super::change::author();
    let query = [("message", end.message.as_str()), ("author", &author)];
    let ended: Rollout = Admin::new(remote)?.post(path, &query, "")?;
    match remote.json {
        true => print_json(&ended),
        false => print_text(&format!("{}\n", head(&ended))),
    }
    Ok(())
}

fn status(remote: &Remote) -> Result<(), Failure> {
    let standing: Standing = Admin::new(remote)?.get("/v1/rollout")?;
    match remote.json {
        true => print_json(&standing),
        false => print_text(&text(&standing, color(&std::io::stdout()))),
    }
    Ok(())
}

/// Waits for the end of the trial that `applied` has begun.
///
/// # Errors
/// It was rolled back.
pub fn wait(applied: &Applied, remote: &Remote) -> Result<(), Failure> {
    let admin = Admin::new(remote)?;
    let shown = std::io::stderr().is_terminal() && !remote.json;
    loop {
        let standing: Standing = admin.get("/v1/rollout")?;
        let ours = standing.rollout.as_ref().filter(|one| one.revision == applied.revision);
        let Some(rollout) = ours else {
            let revision = applied.revision;
            return Err(Failure::new(
                exit::FAILURE,
                format!("revision {revision} is not on trial"),
            ));
        };
        if rollout.lasts() {
            if shown {
                let (canaries, rest) = (&standing.canaries, &standing.rest);
                eprint!(
                    "\r\u{1b}[K{}: {} requests, {:.2} % 5xx; elsewhere {}, {:.2} %",
                    standing.waits_for,
                    canaries.requests,
                    canaries.error_percent(),
                    rest.requests,
                    rest.error_percent()
                );
                std::io::stderr().flush()?;
            }
            std::thread::sleep(TICK);
            continue;
        }
        if shown {
            eprint!("\r\u{1b}[K");
        }
        match remote.json {
            true => print_json(rollout),
            false => print_text(&format!("{}\n", head(rollout))),
        }
        return match rollout.state {
            State::RolledBack => Err(Failure::new(exit::FAILURE, "")),
            _ => Ok(()),
        };
    }
}

fn head(rollout: &Rollout) -> String {
    let nodes = rollout.canaries.join(", ");
    let revision = rollout.revision;
    match rollout.state {
        State::Watching => format!("revision {revision} is on trial on {nodes}"),
        State::Promoted => {
            format!("revision {revision} is promoted to all nodes: {}", rollout.reason)
        }
        State::RolledBack => {
            format!("revision {revision} was rolled back from {nodes}: {}", rollout.reason)
        }
    }
}

fn text(standing: &Standing, color: bool) -> String {
    let Some(rollout) = &standing.rollout else {
        return "no revision was ever on trial: `sluice apply --canary 1` begins with one node\n"
            .into();
    };
    let head = head(rollout);
    if !rollout.lasts() {
        return format!("{head}\n");
    }
    let names = ["SIDE", "REVISION", "NODES", "REQUESTS", "5XX", "P50", "P99"];
    let mut table = Table::new(&names);
    let sides =
        [("canary", rollout.revision, &standing.canaries), ("rest", rollout.base, &standing.rest)];
    for (name, revision, side) in sides {
        let Side { nodes, requests, p50_us, p99_us, .. } = side;
        table.row([
            name.into(),
            revision.to_string(),
            nodes.join(", "),
            requests.to_string(),
            format!("{:.2} %", side.error_percent()),
            p50_us.map(time).unwrap_or_default(),
            p99_us.map(time).unwrap_or_default(),
        ]);
    }
    format!("{head}\nwaits for {}\n\n{}", standing.waits_for, table.render(color))
}
