//! `sluice cache`, and `sluice get cache`.

use clap::{Args, Subcommand};

use super::{
    Failure, Remote,
    admin::Admin,
    color,
    offline::{print_json, print_text},
    table::Table,
};
use crate::api::model::CacheState;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Have stored answers of a node go
    #[command(arg_required_else_help = true)]
    Purge {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        remote: Remote,
    },
}

/// Which answers go.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct What {
    /// All of them
    #[arg(long, conflicts_with_all = ["route", "tag", "host", "path", "prefix"])]
    all: bool,
    /// Those of this route
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Those with this tag, in the route's `tag_header`
    #[arg(long)]
    tag: Option<String>,
    /// Those for this host, with its port where requests have one
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Those for this path, whatever their query
    #[arg(long, conflicts_with = "prefix")]
    path: Option<String>,
    /// Those whose path begins so
    #[arg(long)]
    prefix: Option<String>,
}

pub fn cache(command: Command) -> Result<(), Failure> {
    let Command::Purge { what, remote } = command;
    let said = [
        ("all", what.all.then_some("true")),
        ("route", what.route.as_deref()),
        ("tag", what.tag.as_deref()),
        ("host", what.host.as_deref()),
        ("path", what.path.as_deref()),
        ("prefix", what.prefix.as_deref()),
    ];
    let query: Vec<_> = said.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let state: CacheState = Admin::new(&remote)?.post("/v1/cache/purge", &query, "")?;
    match remote.json {
        true => print_json(&state),
        false => print_text(&format!(
            "{} answers purged; {} are left ({})\n",
            state.purged,
            state.objects,
            size(state.bytes)
        )),
    }
    Ok(())
}

pub fn show(state: &CacheState, remote: &Remote) -> Result<(), Failure> {
    match remote.json {
        true => print_json(state),
        false => print_text(&text(state, color(&std::io::stdout()))),
    }
    Ok(())
}

fn text(state: &CacheState, color: bool) -> String {
    let mut table = Table::new(&["ROUTE", "ANSWERS", "SIZE"]);
    for line in &state.routes {
        table.row([line.route.clone(), line.objects.to_string(), size(line.bytes)]);
    }
    let (bytes, most) = (size(state.bytes), size(state.max_bytes));
    let head = format!("{} answers, {bytes} of {most}\n", state.objects);
    match state.routes.is_empty() {
        true => head,
        false => format!("{head}{}", table.render(color)),
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut at = 0;
    let mut value = bytes as f64;
    while value >= 1024.0 && at + 1 < UNITS.len() {
        value /= 1024.0;
        at += 1;
    }
    match at {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS[at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::CacheLine;

    #[test]
    fn is_told_in_one_line_and_a_table() {
        let state = CacheState {
            purged: 0,
            objects: 3,
            bytes: 1_536,
            max_bytes: 64 << 20,
            routes: vec![CacheLine { route: "shop".into(), objects: 3, bytes: 1_000 }],
        };
        let text = text(&state, false);
        assert!(text.starts_with("3 answers, 1.5 KiB of 64.0 MiB\n"), "{text}");
        assert!(text.contains("shop") && text.contains("1000 B"), "{text}");
    }
}
