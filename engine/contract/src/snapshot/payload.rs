//! What a route changes of bodies.

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutePayload {
    /// The first whose conditions hold is applied.
    pub request: Vec<BodyRule>,
    pub response: Vec<BodyRule>,
    /// Answers are compressed; `None`: they are not.
    pub compress: Option<Compress>,
}

/// What is done with some bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyRule {
    /// Of answers, first and last, both included; empty: any that has a body.
    pub statuses: Vec<(u16, u16)>,
    /// Lower case, without parameters; `text/*` and `*/*` are ranges, `*+json` is any kind of JSON. Empty:
    /// those of `from`.
    pub content_types: Vec<String>,
    pub from: BodyForm,
    pub to: BodyForm,
    /// Request bodies that are compressed are decoded; else they are refused.
    pub decode: bool,
    /// Largest body (decoded), or record of one, in bytes.
    pub max_bytes: u32,
    /// What cannot be read goes on as it is.
    pub pass_unreadable: bool,
    /// Elements of XML that are arrays, by dotted paths.
    pub arrays: Vec<String>,
    pub steps: Vec<BodyStep>,
}

/// What a body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyForm {
    #[default]
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
    /// To be read only.
    Xml,
    /// A JSON value on each line.
    Lines,
    /// Server-sent events with JSON as data.
    Events,
}

/// An operation on JSON. Places are JSON Pointers, values are JSON with templates in their strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyStep {
    Add {
        at: String,
        value: String,
    },
    Replace {
        at: String,
        value: String,
    },
    Remove {
        at: String,
    },
    Move {
        from: String,
        to: String,
    },
    Copy {
        from: String,
        to: String,
    },
    Rename {
        at: String,
        name: String,
    },
    /// Dotted paths.
    Allow(Vec<String>),
    Deny(Vec<String>),
    Wrap(String),
    Unwrap(String),
    Defaults(String),
    Template(String),
    /// A program.
    Jq {
        program: String,
        timeout_ms: u32,
    },
}

/// How answers are compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compress {
    /// With their levels; the first that a client likes best is taken.
    pub codings: Vec<(ContentCoding, u8)>,
    /// Smallest body, in bytes, where its length is known.
    pub min_bytes: u32,
    /// As in [`BodyRule::content_types`].
    pub content_types: Vec<String>,
}

/// A content coding (RFC 9110 §8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCoding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl ContentCoding {
    /// Levels that leave a shard time for others.
    pub fn levels(self) -> std::ops::RangeInclusive<u8> {
        match self {
            ContentCoding::Gzip | ContentCoding::Deflate => 1..=9,
            ContentCoding::Brotli => 0..=6,
            ContentCoding::Zstd => 1..=9,
        }
    }

    pub fn default_level(self) -> u8 {
        match self {
            ContentCoding::Gzip | ContentCoding::Deflate => 5,
            ContentCoding::Brotli => 4,
            ContentCoding::Zstd => 3,
        }
    }
}
