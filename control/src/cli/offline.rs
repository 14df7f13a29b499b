//! Commands that need no running gateway.

use std::{io::Read, path::Path};

use super::{Failure, color, exit};
use crate::{
    compile::compile,
    entry::EngineEntry,
    explain::Question,
    fit,
    spec::{self, Loaded, Spec},
};

/// A spec file as read: its name for messages, and its bytes.
pub struct Source {
    pub name: String,
    pub bytes: Vec<u8>,
}

impl Source {
    /// Reads `file`, or the standard input for `-`.
    pub fn read(file: &Path) -> Result<Source, Failure> {
        // One more than is allowed: `load` then says that it is too large.
        let limit = spec::MAX_BYTES as u64 + 1;
        let mut bytes = Vec::new();
        if file.as_os_str() == "-" {
            std::io::stdin().take(limit).read_to_end(&mut bytes)?;
            return Ok(Source { name: "stdin".into(), bytes });
        }
        let name = file.display().to_string();
        std::fs::File::open(file)
            .and_then(|file| file.take(limit).read_to_end(&mut bytes))
            .map_err(|error| {
                Failure::new(exit::BAD_SPEC, format!("cannot read {name}: {error}"))
            })?;
        Ok(Source { name, bytes })
    }

    /// Checks it in full, the engine's judgement included.
    pub fn load(&self, engine: &EngineEntry) -> Loaded {
        fit::load(&self.name, &self.bytes, engine.check)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The spec; when it is bad, its problems go to stderr (or to stdout as JSON). Warnings are
    /// shown as well.
    pub fn checked(&self, json: bool, engine: &EngineEntry) -> Result<Spec, Failure> {
        let Loaded { spec, problems, .. } = self.load(engine);
        if !problems.is_empty() && !json {
            eprint!("{}", spec::render(&problems, &self.text(), color(&std::io::stderr())));
        }
        spec.ok_or_else(|| {
            if json {
                print_json(&serde_json::json!({ "ok": false, "problems": problems }));
            }
            Failure::new(exit::BAD_SPEC, "")
        })
    }
}

pub fn check(file: &Path, json: bool, engine: &EngineEntry) -> Result<(), Failure> {
    let source = Source::read(file)?;
    let Loaded { spec, problems, .. } = source.load(engine);
    if json {
        print_json(&serde_json::json!({ "ok": spec.is_some(), "problems": problems }));
    } else if !problems.is_empty() {
        eprint!("{}", spec::render(&problems, &source.text(), color(&std::io::stderr())));
    }
    let Some(spec) = spec else { return Err(Failure::new(exit::BAD_SPEC, "")) };
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
    let spec = Source::read(file)?.checked(json, engine)?;
    // Routing does not depend on addresses: nothing is resolved.
    let snapshot = compile(&spec, 1, 0, &|_| Vec::new());
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
