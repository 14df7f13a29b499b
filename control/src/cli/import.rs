//! `sluice import`: the configuration of others as a spec.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Failure, color, exit, export::write, offline::Source};
use crate::import::{Imported, kong, nginx, openapi};

#[derive(Debug, Subcommand)]
pub enum Import {
    /// From an OpenAPI document, 3.0 or 3.1: routes, upstream, security schemes
    #[command(
        after_help = "Examples:\n  sluice import openapi petstore.yaml -o gateway.yaml\n  sluice import openapi petstore.json --upstream http://10.0.0.7:8080\n\nWithout --upstream requests go to the document's first server. With it the servers' hosts are those that\nclients ask for. Extensions: x-sluice-route (fields of a route; at the top, of a path, of an operation),\nx-sluice-authenticator (in a security scheme), x-sluice-upstreams and x-sluice-limits (lists, at the top)."
    )]
    Openapi {
        #[command(flatten)]
        io: Io,
        /// Where requests go, instead of the document's servers
        #[arg(long, value_name = "URL")]
        upstream: Option<String>,
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

impl Import {
    pub fn run(self) -> Result<(), Failure> {
        let (Import::Openapi { io, .. } | Import::Kong { io } | Import::Nginx { io }) = &self;
        let Source { name, bytes, directory } = Source::read(&io.file)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Failure::new(exit::BAD_SPEC, format!("{name} is not UTF-8")))?;
        let imported = match &self {
            Import::Openapi { upstream, .. } => openapi::import(&name, &text, upstream.as_deref()),
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
