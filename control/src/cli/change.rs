//! Commands that change what runs: they show the change, and ask.

use std::{
    io::{BufRead, IsTerminal, Write},
    path::Path,
    time::Duration,
};

use clap::Args;

use super::{
    Failure, Remote,
    admin::Admin,
    color, exit,
    offline::{Source, print_json, print_text},
    show,
};
use crate::{
    api::model::{Applied, Running, Status},
    diff::{self, Diff},
    entry::EngineEntry,
    spec::{REDACTED, Spec},
    store::Revision,
};

/// What every change asks for.
#[derive(Clone, Copy, Debug, Args)]
pub struct Consent {
    /// Do not ask; without a terminal to ask on it must be there
    #[arg(short, long)]
    pub yes: bool,
}

impl Consent {
    /// Whether the person has to be asked.
    ///
    /// # Errors
    /// There is nobody to ask: a pipeline says what it wants with `--yes`.
    fn must_ask(self, what: &str) -> Result<bool, Failure> {
        if self.yes {
            return Ok(false);
        }
        if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
            return Ok(true);
        }
        Err(Failure::new(
            exit::BAD_SPEC,
            format!(
                "there is no terminal to ask on, and nothing was changed: say --yes to {what} without \
                 a question, or look first with `sluice diff -f FILE`"
            ),
        ))
    }
}

/// How a spec is applied.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Only say what would change.
    pub dry_run: bool,
    pub consent: Consent,
    /// How long to wait for other nodes.
    pub wait_cluster: Option<Duration>,
}

pub fn apply(
    file: &Path,
    message: &str,
    how: How,
    remote: &Remote,
    engine: &EngineEntry,
) -> Result<(), Failure> {
    let How { dry_run, consent, wait_cluster } = how;
    let source = Source::read(file)?;
    // The same check that control does, with the text at hand to point into.
    let good = source.checked(remote.json, engine)?;
    let ask = !dry_run && consent.must_ask("apply")?;
    let (admin, author) = (Admin::new(remote)?, author());
    let query = [("message", message), ("author", &*author), ("source", &*source.name)];
    let preview = [&query[..], &[("dry_run", "true")]].concat();
    let mut over = None;
    if ask {
        let planned: Applied = admin.post("/v1/apply", &preview, &good.text)?;
        if planned.unchanged {
            return report(&planned, remote, true);
        }
        show_change(&show::planned(&planned, color(&std::io::stderr())), "Apply?")?;
        // What was looked at is what is changed, or nothing is.
        over = Some(planned.revision);
    }
    let query = if dry_run { &preview[..] } else { &query[..] };
    let applied: Applied = admin.post_over("/v1/apply", query, &good.text, over)?;
    match wait_cluster {
        Some(patience) => {
            let told = show::applied(&applied, !ask, color(&std::io::stdout()));
            super::cluster::wait(&applied, &told, patience, remote)
        }
        None => report(&applied, remote, !ask),
    }
}

pub fn rollback(revision: Option<u64>, consent: Consent, remote: &Remote) -> Result<(), Failure> {
    let ask = consent.must_ask("roll back")?;
    let (admin, author) = (Admin::new(remote)?, author());
    let mut to = revision;
    if ask {
        let running: Running = admin.get("/v1/spec")?;
        let id = revision.unwrap_or_else(|| running.revision.saturating_sub(1));
        let old: Revision = admin.get(&format!("/v1/revisions/{id}"))?;
        show_change(&back(&running, &old, color(&std::io::stderr())), "Roll back?")?;
        to = Some(id);
    }
    let (to, mut query) = (to.map(|id| id.to_string()), vec![("author", &*author)]);
    query.extend(to.as_deref().map(|to| ("to", to)));
    let applied: Applied = admin.post("/v1/rollback", &query, "")?;
    report(&applied, remote, !ask)
}

/// What a rollback would change, for people.
fn back(running: &Running, old: &Revision, color: bool) -> String {
    let head = format!("back from revision {} to {}:\n", running.revision, old.id);
    let now = serde_json::from_value::<Spec>(running.spec.clone());
    let (Ok(now), Ok(then)) = (now, serde_json::from_str::<Spec>(&old.spec)) else {
        return format!("{head}(of another version of sluice: the change cannot be shown)\n");
    };
    let change = diff::diff(&now, &then);
    // Secrets that stand in specs are not told, so whether they change is not known here.
    let hidden = running.spec.to_string().contains(REDACTED) || old.spec.contains(REDACTED);
    let note = match (change.is_empty(), hidden) {
        (true, false) => "(no difference)\n",
        (_, true) => "(secrets that stand in the specs were not compared)\n",
        _ => "",
    };
    format!("{head}{}{note}", change.to_text(color))
}

/// Shows the change and waits for a yes. On the standard error: the standard output is for results.
fn show_change(change: &str, question: &str) -> Result<(), Failure> {
    let mut stderr = std::io::stderr();
    write!(stderr, "{change}\n{question} [y/N] ")?;
    stderr.flush()?;
    match agreed(&mut std::io::stdin().lock())? {
        true => Ok(()),
        false => Err(Failure::new(exit::FAILURE, "nothing was changed")),
    }
}

/// Anything but a yes is a no; so is the end of the input.
fn agreed(answers: &mut impl BufRead) -> std::io::Result<bool> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    let answer = line.trim();
    Ok(answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes"))
}

fn report(applied: &Applied, remote: &Remote, whole: bool) -> Result<(), Failure> {
    match remote.json {
        true => print_json(applied),
        false => print_text(&show::applied(applied, whole, color(&std::io::stdout()))),
    }
    Ok(())
}

pub fn diff(
    file: &Path,
    exit_code: bool,
    remote: &Remote,
    engine: &EngineEntry,
) -> Result<(), Failure> {
    let good = Source::read(file)?.checked(remote.json, engine)?;
    let admin = Admin::new(remote)?;
    // Control compares: secrets that stand in the running spec never leave it.
    let diff: Diff = admin.post("/v1/diff", &[], &good.text)?;
    if remote.json {
        print_json(&diff);
    } else if diff.is_empty() {
        let status: Status = admin.get("/v1/status")?;
        print_text(&format!("no difference to revision {}\n", status.revision));
    } else {
        print_text(&diff.to_text(color(&std::io::stdout())));
    }
    match exit_code && !diff.is_empty() {
        true => Err(Failure::new(exit::DIFFERS, "")),
        false => Ok(()),
    }
}

/// Who is asking, for the list of revisions.
fn author() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "unknown".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, yes) in [
            ("y\n", true),
            (" YES \r\n", true),
            ("", false),
            ("\n", false),
            ("n\n", false),
            ("yes please\n", false),
            ("no\ny\n", false),
        ] {
            assert_eq!(agreed(&mut answer.as_bytes()).unwrap(), yes, "{answer:?}");
        }
    }

    #[test]
    fn a_rollback_shows_what_it_changes() {
        let text = |port: u16| {
            format!(
                "version: 1\nlisteners: [{{name: web, listen: ':8080'}}]\n\
                 upstreams: [{{name: a, targets: ['a:{port}']}}]\nroutes: [{{name: r, upstream: a}}]\n"
            )
        };
        let json = |port| {
            let spec = spec::load("t.yaml", &text(port)).spec.expect("loads");
            serde_json::to_value(spec).expect("serialises")
        };
        let running = Running {
            revision: 3,
            epoch: 9,
            author: String::new(),
            message: String::new(),
            created_ms: 0,
            source_name: String::new(),
            source: text(1),
            spec: json(1),
        };
        let old = |port| Revision {
            id: 2,
            created_ms: 0,
            author: String::new(),
            message: String::new(),
            spec: json(port).to_string().into(),
            source: text(port).into(),
            source_name: String::new(),
            diff: serde_json::Value::Null,
        };
        assert_eq!(
            back(&running, &old(2), false),
            "back from revision 3 to 2:\n~ upstream a\n    - targets[a:1]: \
             {\"address\":\"a:1\",\"priority\":0,\"weight\":1}\n    + targets[a:2]: \
             {\"address\":\"a:2\",\"priority\":0,\"weight\":1}\n"
        );
        assert!(back(&running, &old(2), true).contains("\u{1b}[32m"));
        assert_eq!(back(&running, &old(1), false), "back from revision 3 to 2:\n(no difference)\n");
        let odd = Revision { spec: "{}".into(), ..old(1) };
        assert!(back(&running, &odd, false).contains("cannot be shown"));
    }
}
