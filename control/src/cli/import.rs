//! `sluice import`: the configuration of others as a spec.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Failure, color, exit, export::write, offline::Source};
use crate::import::{
    Imported, kong, nginx,
    openapi::{self, Document},
};

#[derive(Debug, Subcommand)]
pub enum Import {
    /// From an OpenAPI document, 3.0 or 3.1: routes, upstream, security schemes, validation of requests
    #[command(
        after_help = "Examples:\n  sluice import openapi petstore.yaml -o gateway.yaml\n  sluice import openapi petstore.json --upstream http://10.0.0.7:8080\n\nThe spec names the document as an API and holds requests against it: the file is to stay where it is.\nWithout --upstream requests go to the document's first server. With it the servers' hosts are those that\nclients ask for. Extensions: x-sluice-route (fields of a route; at the top, of a path, of an operation),\nx-sluice-authenticator (in a security scheme), x-sluice-upstreams and x-sluice-limits (lists, at the top)."
    )]
    Openapi {
        #[command(flatten)]
        io: Io,
        /// Where requests go, instead of the document's servers
        #[arg(long, value_name = "URL")]
        upstream: Option<String>,
        /// Do not hold requests against the document
        #[arg(long)]
        no_validation: bool,
    },
    /// From Kong's declarative configuration (decK), 2.x or 3.x
    #[command(
        after_help = "Examples:\n  sluice import kong kong.yaml -o gateway.yaml\n  deck gateway dump -o - | sluice import kong - | sluice check -\n\nKeys become hashes and passwords argon2id hashes; secrets of JWTs stand in what is written."
    )]
    Kong {
        #[command(flatten)]
        io: Io,
    },
    /// From a configuration of nginx: servers, locations, upstreams, limits
    #[command(
        after_help = "Examples:\n  sluice import nginx /etc/nginx/nginx.conf -o gateway.yaml\n  sluice import nginx site.conf\n\nIncludes are followed, relative to the file's directory."
    )]
    Nginx {
        #[command(flatten)]
        io: Io,
    },
}

#[derive(Debug, Args)]
pub struct Io {
    /// What to read; - reads the standard input
    file: PathBuf,
    /// Write to this file, which only its owner may read, instead of the standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Io {
    /// Where the file is, and how a spec names it: by its name where the spec is written beside it. The
    /// standard input is nowhere.
    fn places(&self) -> Option<(String, String)> {
        let path = std::fs::canonicalize(&self.file).ok()?;
        let beside = self.output.as_deref().and_then(|output| {
            let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty());
            std::fs::canonicalize(directory.unwrap_or(Path::new("."))).ok()
        });
        let named = match path.file_name() {
            Some(name) if beside.as_deref() == path.parent() => Path::new(name),
            _ => &path,
        };
        Some((path.to_str()?.into(), named.to_str()?.into()))
    }
}

impl Import {
    pub fn run(self) -> Result<(), Failure> {
        let (Import::Openapi { io, .. } | Import::Kong { io } | Import::Nginx { io }) = &self;
        let Source { name, bytes, directory } = Source::read(&io.file)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Failure::new(exit::BAD_SPEC, format!("{name} is not UTF-8")))?;
        let imported = match &self {
            Import::Openapi { upstream, no_validation, .. } => {
                let places = (!no_validation).then(|| io.places()).flatten();
                let document = places.as_ref().map(|(path, named)| Document { path, named });
                openapi::import(&name, &text, upstream.as_deref(), document)
            }
            Import::Kong { .. } => kong::import(&name, &text, &|password| {
                super::keys::new_hash(password).map_err(|failure| failure.message)
            }),
            Import::Nginx { .. } => nginx::import(&name, &text, &directory),
        };
        let Imported { text, warnings } =
            imported.map_err(|message| Failure::new(exit::BAD_SPEC, message))?;
        let (tone, plain) = match color(&std::io::stderr()) {
            true => ("\u{1b}[1;33m", "\u{1b}[0m"),
            false => ("", ""),
        };
        for warning in &warnings {
            eprintln!(
                "{}:{}: {tone}warning{plain}: {}",
                warning.place.file, warning.place.line, warning.message
            );
        }
        write(io.output.as_deref(), &text)
    }
}
