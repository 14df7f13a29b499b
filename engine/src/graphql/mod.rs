//! GraphQL requests (<https://graphql.github.io/graphql-over-http/>) held against a route's bounds before
//! they go on to an upstream, which stays the one that answers them.

mod document;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use contract::record::Reason;
use contract::snapshot::Graphql;

use self::document::{Kind, measure};
use crate::auth::credentials;
use crate::exchange::{Request, Responder};
use crate::local_reply::LocalReply;
use crate::payload::json::{Json, Text};
use crate::shard::Shard;
use crate::upload;

/// What operations may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub max_depth: u32,
    pub max_cost: u64,
    pub max_aliases: u64,
    pub max_tokens: usize,
    pub max_batch: usize,
    pub max_bytes: usize,
    pub introspection: bool,
    pub list_arguments: Box<[Box<str>]>,
    pub weights: HashMap<Box<str>, u32>,
    pub operations: Box<[Box<str>]>,
    /// SHA-256, lower-case hexadecimal.
    pub documents: Box<[Box<str>]>,
}

impl Rules {
    pub fn new(from: &Graphql) -> Rules {
        let boxed = |list: &[String]| list.iter().map(|one| one.as_str().into()).collect();
        Rules {
            max_depth: from.max_depth.into(),
            max_cost: from.max_cost.into(),
            max_aliases: from.max_aliases.into(),
            max_tokens: from.max_tokens as usize,
            max_batch: from.max_batch.into(),
            max_bytes: from.max_bytes as usize,
            introspection: from.introspection,
            list_arguments: boxed(&from.list_arguments),
            weights: from
                .weights
                .iter()
                .map(|(name, weight)| (name.as_str().into(), *weight))
                .collect(),
            operations: boxed(&from.operations),
            documents: boxed(&from.documents),
        }
    }
}

/// Why a request does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub status: u16,
    /// For programs; those of Apollo's servers where there are such.
    pub code: &'static str,
    pub problem: String,
}

impl Refused {
    fn new(code: &'static str, problem: &str) -> Refused {
        Refused { status: 400, code, problem: problem.into() }
    }
}

/// Refuses a request that is past a bound of its route.
///
/// # Errors
/// 400 with GraphQL's `errors`; 405 for a method, 413 and 415 for a body.
pub async fn admit(
    shard: &Shard,
    request: &mut Request,
    responder: &Responder,
    rules: &Rules,
    max_body_bytes: u64,
) -> Result<(), LocalReply> {
    if request.upgrade.is_some() {
        return Ok(());
    }
    let judged = match request.head.method(request.bytes()) {
        b"GET" | b"HEAD" => {
            let query = request.head.query(request.bytes()).unwrap_or_default();
            judge_query(query, rules)
        }
        b"POST" => match content(request) {
            Ok(content) => {
                let body = upload::gather_request(
                    shard,
                    request,
                    responder,
                    rules.max_bytes,
                    max_body_bytes,
                );
                let body = body.await?;
                let judged = judge_body(content, &body, rules);
                if let Ok(Some(written)) = &judged
                    && *written != body
                {
                    // A name that was there twice could be read otherwise behind us.
                    request.replace_body(written.clone());
                }
                judged.map(|_| ())
            }
            Err(refused) => Err(refused),
        },
        _ => return Err(LocalReply::method_not_allowed(b"GET, POST".to_vec())),
    };
    judged.map_err(|refused| reply(request, refused))
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Json,
    /// The document itself.
    Document,
}

fn content(request: &Request) -> Result<Content, Refused> {
    let (head, bytes) = (&*request.head, request.bytes());
    let refused = |problem: &str| Refused { status: 415, ..Refused::new("BAD_REQUEST", problem) };
    let mut codings = credentials::fields(head, bytes, b"content-encoding");
    if codings.any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(refused("a body that is compressed cannot be read; send it as it is"));
    }
    let mut types = credentials::fields(head, bytes, b"content-type");
    let (first, more) = (types.next().unwrap_or_default(), types.next().is_some());
    let media_type = first.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    match media_type.to_ascii_lowercase().as_slice() {
        _ if more => Err(refused("there is more than one Content-Type")),
        b"application/json" => Ok(Content::Json),
        b"application/graphql" => Ok(Content::Document),
        _ => Err(refused("a request is application/json")),
    }
}

/// A request in a query string.
fn judge_query(query: &[u8], rules: &Rules) -> Result<(), Refused> {
    let (mut text, mut name, mut variables, mut extensions) = (None, None, None, None);
    for (key, value) in form_urlencoded::parse(query) {
        let place = match &*key {
            "query" => &mut text,
            "operationName" => &mut name,
            "variables" => &mut variables,
            "extensions" => &mut extensions,
            _ => continue,
        };
        if place.replace(value).is_some() {
            return Err(Refused::new("BAD_REQUEST", "a parameter is there twice"));
        }
    }
    let json = |text: &Option<Cow<'_, str>>| match text {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => match Json::parse(text.as_bytes()) {
            Ok(json) => Ok(Some(json.into_owned())),
            Err(_) => Err(Refused::new("BAD_REQUEST", "a parameter is no JSON")),
        },
    };
    let (variables, extensions) = (json(&variables)?, json(&extensions)?);
    let asked = Asked {
        text: text.as_deref().filter(|text| !text.is_empty()),
        name: name.as_deref().filter(|name| !name.is_empty()),
        variables: variables.as_ref(),
        extensions: extensions.as_ref(),
    };
    let (kind, cost) = asked.judge(rules)?;
    if matches!(kind, Some(Kind::Mutation | Kind::Subscription)) {
        let problem = "only queries can be asked by GET";
        return Err(Refused { status: 405, ..Refused::new("METHOD_NOT_ALLOWED", problem) });
    }
    within(cost, rules)
}

/// A body; the JSON as it goes on.
fn judge_body(content: Content, body: &[u8], rules: &Rules) -> Result<Option<Vec<u8>>, Refused> {
    let bad = |problem| Refused::new("BAD_REQUEST", problem);
    if content == Content::Document {
        let text = std::str::from_utf8(body).map_err(|_| bad("the body is not UTF-8"))?;
        let asked = Asked { text: Some(text), name: None, variables: None, extensions: None };
        let (_, cost) = asked.judge(rules)?;
        return within(cost, rules).map(|()| None);
    }
    let json = Json::parse(body).map_err(|_| bad("the body is no JSON"))?;
    let cost = match &json {
        Json::Array(batch) => {
            if batch.len() > rules.max_batch || batch.is_empty() || rules.max_batch == 1 {
                let problem = match rules.max_batch {
                    1 => "batches are not taken".to_owned(),
                    most => format!("a batch has 1 to {most} operations"),
                };
                return Err(Refused::new("BATCH_TOO_LARGE", &problem));
            }
            let mut cost = 0u64;
            for one in batch {
                cost = cost.saturating_add(Asked::of(one)?.judge(rules)?.1);
            }
            cost
        }
        one => Asked::of(one)?.judge(rules)?.1,
    };
    within(cost, rules)?;
    Ok(Some(json.to_vec()))
}

fn within(cost: u64, rules: &Rules) -> Result<(), Refused> {
    match cost <= rules.max_cost {
        true => Ok(()),
        false => {
            let problem = format!("this costs {cost}; at most {} is taken", rules.max_cost);
            Err(Refused::new("QUERY_TOO_COSTLY", &problem))
        }
    }
}

/// One operation that is asked.
struct Asked<'a> {
    text: Option<&'a str>,
    name: Option<&'a str>,
    variables: Option<&'a Json<'a>>,
    extensions: Option<&'a Json<'a>>,
}

impl Asked<'_> {
    /// # Errors
    /// It is no request.
    fn of<'a>(json: &'a Json<'a>) -> Result<Whole<'a>, Refused> {
        let bad = |problem| Refused::new("BAD_REQUEST", problem);
        let Json::Object(_) = json else { return Err(bad("a request is an object")) };
        let text = |name: &str| match json.member(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.decoded())),
            Some(_) => Err(bad("query and operationName are texts")),
        };
        let member = |name| json.member(name).filter(|value| **value != Json::Null);
        Ok(Whole {
            text: text("query")?,
            name: text("operationName")?,
            variables: member("variables"),
            extensions: member("extensions"),
        })
    }

    /// Its kind, where that can be known, and what it costs.
    fn judge(&self, rules: &Rules) -> Result<(Option<Kind>, u64), Refused> {
        let persisted = self.extensions.and_then(|all| all.member("persistedQuery"));
        let persisted = persisted.and_then(|one| one.member("sha256Hash"));
        let listed = |hash: &str| rules.documents.iter().any(|own| own.eq_ignore_ascii_case(hash));
        let Some(text) = self.text else {
            return match persisted {
                Some(Json::String(hash)) if listed(&hash.decoded()) => Ok((None, 1)),
                Some(_) => Err(Refused::new(
                    "PERSISTED_QUERY_NOT_FOUND",
                    "this document is not one that may be asked here",
                )),
                None => Err(Refused::new("BAD_REQUEST", "there is no query")),
            };
        };
        if !rules.documents.is_empty() && !listed(&sha256(text)) {
            let problem = "this document is not one that may be asked here";
            return Err(Refused::new("DOCUMENT_NOT_ALLOWED", problem));
        }
        let measured = measure(text, self.name, self.variables, rules)?;
        Ok((Some(measured.kind), measured.cost))
    }
}

/// One operation of a body.
struct Whole<'a> {
    text: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    variables: Option<&'a Json<'a>>,
    extensions: Option<&'a Json<'a>>,
}

impl Whole<'_> {
    fn judge(&self, rules: &Rules) -> Result<(Option<Kind>, u64), Refused> {
        let asked = Asked {
            text: self.text.as_deref(),
            name: self.name.as_deref(),
            variables: self.variables,
            extensions: self.extensions,
        };
        asked.judge(rules)
    }
}

fn sha256(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The answer in GraphQL's form (§7.1.2 of its specification).
fn reply(request: &Request, refused: Refused) -> LocalReply {
    let extensions = vec![(Text::new("code"), Json::string(refused.code))];
    let error = Json::Object(vec![
        (Text::new("message"), Json::string(&refused.problem)),
        (Text::new("extensions"), Json::Object(extensions)),
    ]);
    let body = Json::Object(vec![(Text::new("errors"), Json::Array(vec![error]))]).to_vec();
    let mut accepted = credentials::fields(&request.head, request.bytes(), b"accept");
    let modern = accepted.any(|value| {
        let text = value.to_ascii_lowercase();
        memchr::memmem::find(&text, b"application/graphql-response+json").is_some()
    });
    let content_type = match modern {
        true => "application/graphql-response+json",
        false => "application/json",
    };
    let field = (refused.status == 405).then(|| ("Allow", b"POST".to_vec()));
    LocalReply { field, ..LocalReply::new(refused.status, Reason::QueryRefused) }.with_text(
        refused.status,
        content_type,
        &String::from_utf8_lossy(&body),
    )
}
