//! How secrets are written.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::spec::model::{Secret, SecretCommand};
use crate::spec::scalars::Refresh;

/// A secret: a file, an environment variable, what a program prints, or the text itself.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum SecretForm {
    File {
        /// File with the secret; one newline at its end does not count. Relative to the spec's
        /// directory, and watched.
        file: String,
    },
    Env {
        /// Environment variable of the control process, which has those of `sluice up`.
        #[schemars(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
        env: String,
    },
    Command {
        /// A program and its arguments, run without a shell: what it prints, without blanks around it.
        /// The gateway must have been started with --secret-command PROGRAM.
        #[schemars(length(min = 1, max = 64))]
        command: Vec<String>,
        /// How often it is run again: 10s to 1d.
        #[serde(default)]
        refresh: Refresh,
    },
    Inline {
        /// The secret itself. It is kept with the spec, but not shown where the spec is.
        inline: String,
    },
}

impl From<SecretForm> for Secret {
    fn from(form: SecretForm) -> Self {
        match form {
            SecretForm::File { file } => Secret::File(file),
            SecretForm::Env { env } => Secret::Env(env),
            SecretForm::Command { command, refresh } => {
                Secret::Command(SecretCommand { command, refresh })
            }
            SecretForm::Inline { inline } => Secret::Inline(inline),
        }
    }
}

impl From<Secret> for SecretForm {
    fn from(secret: Secret) -> Self {
        match secret {
            Secret::File(file) => SecretForm::File { file },
            Secret::Env(env) => SecretForm::Env { env },
            Secret::Command(SecretCommand { command, refresh }) => {
                SecretForm::Command { command, refresh }
            }
            Secret::Inline(inline) => SecretForm::Inline { inline },
        }
    }
}

schema_as!(Secret, SecretForm);

impl JsonSchema for Refresh {
    fn schema_name() -> Cow<'static, str> {
        "Refresh".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A time from 10s to 1d, such as 30s, 5m or 1h.",
            "pattern": "^[0-9]+[smhd]$",
        })
    }
}
