//! Commands that need no running gateway.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use super::{Failure, color, exit};
use crate::{
    entry::EngineEntry,
    explain::Question,
    fit::{self, Checked, Whole},
    spec,
};

/// A spec file as read: its name for messages, and its bytes.
pub struct Source {
    pub name: String,
    pub bytes: Vec<u8>,
    /// Where its relative file names begin.
    pub directory: PathBuf,
}

impl Source {
    /// Reads `file`, or the standard input for `-`.
    pub fn read(file: &Path) -> Result<Source, Failure> {
        // One more than is allowed: `load` then says that it is too large.
        let limit = spec::MAX_BYTES as u64 + 1;
        let mut bytes = Vec::new();
        let directory = std::path::absolute(file)?.parent().map(Path::to_owned);
        let directory = directory.unwrap_or_else(|| "/".into());
        if file.as_os_str() == "-" {
            std::io::stdin().take(limit).read_to_end(&mut bytes)?;
            return Ok(Source { name: "stdin".into(), bytes, directory: std::env::current_dir()? });
        }
        let name = file.display().to_string();
        std::fs::File::open(file)
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .map_err(|error| {
                Failure::new(exit::BAD_SPEC, format!("cannot read {name}: {error}"))
            })?;
        Ok(Source { name, bytes, directory })
    }

    /// Checks it in full, its files and the engine's judgement included.
    pub fn load(&self, engine: &EngineEntry) -> Checked {
        fit::load(&self.name, &self.bytes, Some(&self.directory), engine.check)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The spec; when it is bad, its problems go to stderr (or to stdout as JSON). Warnings are
    /// shown as well.
    pub fn checked(&self, json: bool, engine: &EngineEntry) -> Result<Good, Failure> {
        let Checked { whole, problems, text, .. } = self.load(engine);
        if !problems.is_empty() && !json {
            eprint!("{}", spec::render(&problems, &self.text(), color(&std::io::stderr())));
        }
        let whole = whole.ok_or_else(|| {
            if json {
                print_json(&serde_json::json!({ "ok": false, "problems": problems }));
            }
            Failure::new(exit::BAD_SPEC, "")
        })?;
        Ok(Good { whole, text })
    }
}

/// A spec that passed every check.
pub struct Good {
    pub whole: Whole,
    /// The text with absolute file names, for control.
    pub text: String,
}

pub fn check(file: &Path, json: bool, engine: &EngineEntry) -> Result<(), Failure> {
    let source = Source::read(file)?;
    let Checked { whole, problems, .. } = source.load(engine);
    if json {
        print_json(&serde_json::json!({ "ok": whole.is_some(), "problems": problems }));
    } else if !problems.is_empty() {
        eprint!("{}", spec::render(&problems, &source.text(), color(&std::io::stderr())));
    }
    let Some(Whole { spec, .. }) = whole else { return Err(Failure::new(exit::BAD_SPEC, "")) };
    if !json {
        println!(
            "{} is good: {}, {}, {}",
            source.name,
            count(spec.listeners.len(), "listener"),
            count(spec.upstreams.len(), "upstream"),
            count(spec.routes.len(), "route"),
        );
    }
    Ok(())
}

pub fn schema() -> Result<(), Failure> {
    print_json(&spec::schema());
    Ok(())
}

pub fn explain(
    file: &Path,
    question: &Question,
    all: bool,
    json: bool,
    engine: &EngineEntry,
) -> Result<(), Failure> {
    let Whole { spec, material, .. } = Source::read(file)?.checked(json, engine)?.whole;
    let snapshot = fit::plain(&spec, &material);
    question.check(&snapshot).map_err(|problem| Failure::new(exit::BAD_SPEC, problem))?;
    let explanation = (engine.explain)(&snapshot, question).map_err(Failure::from)?;
    match json {
        true => print_json(&explanation),
        false => print_text(&explanation.to_text(all)),
    }
    Ok(())
}

pub fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

pub fn print_json(value: &impl serde::Serialize) {
    // Our types have string keys only, so this cannot fail.
    print_text(&format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default()));
}

/// Prints to stdout. A reader that went away (`| head`) is no error.
pub fn print_text(text: &str) {
    use std::io::Write;
    _ = std::io::stdout().write_all(text.as_bytes());
}
