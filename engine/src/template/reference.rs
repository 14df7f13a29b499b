//! What a placeholder asks for.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::message::Name;

/// A thing that a template asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Reference {
    /// The whole path in normal form, percent-encoded.
    Path,
    Capture(Capture),
    /// Names compare percent-decoded.
    Query(Box<str>),
    Header(FieldName),
    Cookie(Box<str>),
    /// In the claims of the caller's token.
    Claim(Pointer),
    Consumer(ConsumerPart),
    ClientAddress,
    Request(RequestPart),
    RouteName,
    Time(TimePart),
    ResponseStatus,
    ResponseHeader(FieldName),
    Body(Pointer),
    /// `index`: the call's place in the scope's list.
    Call {
        index: usize,
        part: CallPart,
    },
    Item(Pointer),
    Index,
}

/// The first word of a placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    Path,
    Query,
    Header,
    Cookie,
    Claim,
    Consumer,
    Client,
    Request,
    Route,
    Time,
    Response,
    Body,
    Call,
    Item,
    Index,
}

/// A part of the path that the route's match names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    pub name: Box<str>,
    /// Its place in the scope's list.
    pub index: usize,
}

/// The name of a header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldName {
    pub id: Name,
    /// Lower case.
    pub text: Box<str>,
}

impl FieldName {
    pub fn new(name: &str) -> FieldName {
        let text = name.to_ascii_lowercase();
        FieldName { id: Name::classify(text.as_bytes()), text: text.into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerPart {
    Id,
    Username,
    /// The first of its groups.
    Group,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestPart {
    Id,
    Method,
    /// As the client gave it, with the port if it had one.
    Host,
    Path,
    /// As it came, without `?`.
    Query,
    Scheme,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimePart {
    /// Seconds since 1970.
    Unix,
    /// RFC 3339, in UTC, by the second.
    Iso,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CallPart {
    Status,
    Header(FieldName),
    Body(Pointer),
}

/// A way into JSON. Empty: all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointer(pub Box<[Step]>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Key(Box<str>),
    /// From 0.
    At(usize),
}

impl Pointer {
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, |value, step| match step {
            Step::Key(key) => value.get(&**key),
            Step::At(at) => value.get(at),
        })
    }

    /// Likewise, from the members of an object. There is nothing at the empty way.
    pub fn find_in<'v>(&self, members: &'v Map<String, Value>) -> Option<&'v Value> {
        let (first, rest) = self.0.split_first()?;
        let Step::Key(key) = first else { return None };
        rest.iter().try_fold(members.get(&**key)?, |value, step| match step {
            Step::Key(key) => value.get(&**key),
            Step::At(at) => value.get(at),
        })
    }
}

/// The text of a JSON value: of strings without quotes, of lists and objects as JSON; `null` has none.
pub fn text_of(value: &Value) -> Option<Cow<'_, [u8]>> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(true) => Cow::Borrowed(b"true"),
        Value::Bool(false) => Cow::Borrowed(b"false"),
        Value::String(text) => Cow::Borrowed(text.as_bytes()),
        Value::Number(number) => Cow::Owned(number.to_string().into_bytes()),
        Value::Array(_) | Value::Object(_) => Cow::Owned(value.to_string().into_bytes()),
    })
}

impl Reference {
    pub fn root(&self) -> Root {
        match self {
            Reference::Path | Reference::Capture(_) => Root::Path,
            Reference::Query(_) => Root::Query,
            Reference::Header(_) => Root::Header,
            Reference::Cookie(_) => Root::Cookie,
            Reference::Claim(_) => Root::Claim,
            Reference::Consumer(_) => Root::Consumer,
            Reference::ClientAddress => Root::Client,
            Reference::Request(_) => Root::Request,
            Reference::RouteName => Root::Route,
            Reference::Time(_) => Root::Time,
            Reference::ResponseStatus | Reference::ResponseHeader(_) => Root::Response,
            Reference::Body(_) => Root::Body,
            Reference::Call { .. } => Root::Call,
            Reference::Item(_) => Root::Item,
            Reference::Index => Root::Index,
        }
    }

    /// Whether its text is a piece of a URI already, with its own delimiters: escaping would break it.
    pub(super) fn is_uri(&self) -> bool {
        use RequestPart::{Host, Path, Query, Scheme};
        matches!(self, Reference::Path | Reference::Request(Host | Path | Query | Scheme))
    }
}

impl Root {
    pub(super) const ALL: &'static [(&'static str, Root)] = &[
        ("path", Root::Path),
        ("query", Root::Query),
        ("header", Root::Header),
        ("cookie", Root::Cookie),
        ("claim", Root::Claim),
        ("consumer", Root::Consumer),
        ("client", Root::Client),
        ("request", Root::Request),
        ("route", Root::Route),
        ("time", Root::Time),
        ("response", Root::Response),
        ("body", Root::Body),
        ("call", Root::Call),
        ("item", Root::Item),
        ("index", Root::Index),
    ];

    pub fn name(self) -> &'static str {
        Root::ALL.iter().find(|(_, root)| *root == self).map_or("", |(name, _)| name)
    }
}
