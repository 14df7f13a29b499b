//! Another service decides about requests: it is shown some of their fields, and says yes or no by a
//! status.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use contract::snapshot::{self, Snapshot};
use ring::digest::{Context, SHA256};

use super::credentials::{Found, fields};
use super::identity::Fields;
use super::registry::{Registry, Unfit};
use super::{Call, Check, Identity, Outcome, Refusal};
use crate::io::wall_ms;
use crate::limits;
use crate::message::{Name, write};
use crate::store::answers::{Answers, Believed, Key};
use crate::store::http::{Answer, Clients, Endpoint, Failure, HeaderMap, HeaderName, Question};

#[cfg(test)]
mod tests;

/// An authenticator that asks a service.
#[derive(Debug)]
pub struct External {
    service: Arc<Service>,
    /// Lower case.
    send: Box<[HeaderName]>,
}

/// The service, as the store thread asks it.
#[derive(Debug)]
struct Service {
    endpoint: Endpoint,
    take: Box<[HeaderName]>,
    consumer: Option<HeaderName>,
    cache_ms: u64,
    answers: Answers<Decision>,
}

/// What the service says of a request.
#[derive(Clone, Debug)]
enum Decision {
    Allowed { consumer: Option<Arc<str>>, fields: Fields },
    Refused(Refusal),
}

/// What it is asked by, beside the fields of [`snapshot::External::send`].
const METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const WWW_AUTHENTICATE: HeaderName = HeaderName::from_static("www-authenticate");
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl External {
    /// # Errors
    /// A field cannot be sent or taken, or a certificate cannot be used.
    pub fn build(from: &snapshot::External, snapshot: &Snapshot) -> Result<External, Unfit> {
        let consumer = from.consumer_header.as_ref().map(|name| name_of(name, "consumer_header"));
        let service = Service {
            endpoint: Endpoint::build(&from.endpoint, None, snapshot)?,
            take: from.take.iter().map(|name| name_of(name, "take")).collect::<Result<_, _>>()?,
            consumer: consumer.transpose()?,
            cache_ms: from.cache_ms.into(),
            answers: Answers::default(),
        };
        let send = from.send.iter().map(|name| name_of(name, "send")).collect::<Result<_, _>>()?;
        Ok(External { service: Arc::new(service), send })
    }

    /// Whether decisions are believed for longer than for one request.
    pub fn is_remembered(&self) -> bool {
        self.service.cache_ms > 0
    }

    /// What it decides by: a digest of all that it is told. Whatever is left out of it could be what
    /// the decision depends on. Every request has one: the service knows what it needs.
    pub fn credential<'a>(&'a self, call: Call<'a>) -> Found<'a> {
        if !self.is_remembered() {
            return Found::One(Cow::Borrowed(b""));
        }
        let mut digest = Context::new(&SHA256);
        let mut add = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        self.tell(call, |name, value| {
            add(name.as_str().as_bytes());
            add(value);
        });
        Found::One(Cow::Owned(digest.finish().as_ref().to_vec()))
    }

    pub fn verify<'a>(&'a self, call: Call<'a>, _index: u32, credential: &[u8]) -> Check<'a> {
        let mut question = Question::default();
        let mut whole = true;
        self.tell(call, |name, value| match value.try_into() {
            Ok(value) => drop(question.fields.append(name, value)),
            Err(_) => whole = false,
        });
        if !whole {
            return Check::refused(Refusal::Unavailable);
        }
        let (service, now_ms) = (self.service.clone(), call.wall_ms());
        let key = Key::try_from(credential).ok().filter(|_| self.is_remembered());
        let desk = call.shard.desk();
        let http = desk.store().http();
        let asked = desk.ask(async move {
            match key {
                None => service.ask(&http, question).await,
                Some(key) => {
                    service.answers.get(key, now_ms, || service.ask(&http, question)).await
                }
            }
        });
        Check::later(async move {
            match asked.await {
                Err(_) => Outcome::Refused(Refusal::Unavailable),
                Ok(Believed { value: Decision::Refused(refusal), .. }) => Outcome::Refused(refusal),
                Ok(Believed {
                    value: Decision::Allowed { consumer, fields }, until_ms, ..
                }) => {
                    let known = identity(call.registry, consumer);
                    Outcome::Known(Rc::new(Identity { fields, until_ms, ..known }))
                }
            }
        })
    }

    /// Tells `out` what the service is told, in an order that is always the same.
    fn tell(&self, call: Call<'_>, mut out: impl FnMut(&HeaderName, &[u8])) {
        for name in &self.send {
            for value in fields(call.head, call.bytes, name.as_str().as_bytes()) {
                out(name, value);
            }
        }
        let path = if call.path.is_empty() { b"/" } else { call.path };
        let uri = match call.head.query(call.bytes) {
            None => Cow::Borrowed(path),
            Some(query) => Cow::Owned([path, b"?", query].concat()),
        };
        out(&METHOD, call.head.method(call.bytes));
        out(&URI, &uri);
        let host = call.head.authority().map_or(&b""[..], |span| span.of(call.bytes));
        out(&HOST, host);
        out(&PROTO, if call.client.tls.is_some() { b"https" } else { b"http" });
        out(&FOR, &forwarded_for(call));
    }
}

/// Who the client is, as upstreams are told.
fn forwarded_for(call: Call<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    if call.client.trusted {
        for value in fields(call.head, call.bytes, b"x-forwarded-for").filter(|v| !v.is_empty()) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
    let ip: IpAddr = call.client.address.ip().to_canonical();
    out.extend_from_slice(ip.to_string().as_bytes());
    out
}

impl Service {
    async fn ask(&self, http: &Clients, question: Question) -> Believed<Decision> {
        let decided = match http.ask(&self.endpoint, question).await {
            Ok(answer) => self.decision(&answer),
            Err(failure) => Err(failure),
        };
        let now_ms = wall_ms();
        match decided {
            Ok(value @ Decision::Allowed { .. }) => {
                let bytes = 1_024;
                Believed { value, until_ms: now_ms + self.cache_ms, bytes }
            }
            // As with all credentials: what is refused may be allowed soon.
            Ok(value) => {
                let until_ms = now_ms + self.cache_ms.min(limits::AUTH_NEGATIVE_MS);
                let told = match &value {
                    Decision::Refused(Refusal::Challenged(all)) => {
                        all.iter().map(|one| one.len()).sum()
                    }
                    _ => 0,
                };
                Believed { value, until_ms, bytes: 64 + told }
            }
            Err(failure) => {
                self.endpoint.complain(&failure);
                Believed::once(Decision::Refused(Refusal::Unavailable))
            }
        }
    }

    fn decision(&self, answer: &Answer) -> Result<Decision, Failure> {
        match answer.status {
            200..=299 => {}
            401 => return Ok(Decision::Refused(challenged(&answer.fields))),
            403 => return Ok(Decision::Refused(Refusal::Forbidden)),
            status => return Err(Failure::Status(status)),
        }
        let consumer = match &self.consumer {
            None => None,
            Some(name) => text(&answer.fields, name)?,
        };
        let mut taken = Vec::new();
        let mut bytes = 0;
        for name in &self.take {
            for value in answer.fields.get_all(name) {
                bytes += name.as_str().len() + value.len();
                taken.push((name.as_str().into(), value.as_bytes().into()));
            }
        }
        match bytes > limits::TAKEN_FIELDS {
            true => Err(Failure::TooLarge),
            false => Ok(Decision::Allowed { consumer, fields: taken.into() }),
        }
    }
}

/// Who is refused is told what the service says to it (RFC 9110 §11.6.1).
fn challenged(fields: &HeaderMap) -> Refusal {
    let values = fields.get_all(WWW_AUTHENTICATE).iter().map(|value| value.as_bytes());
    let challenges: Vec<Box<[u8]>> =
        values.filter(|value| !value.is_empty()).map(Box::from).collect();
    let bytes: usize = challenges.iter().map(|value| value.len()).sum();
    match bytes {
        1..=limits::CHALLENGES => Refusal::Challenged(challenges.into()),
        _ => Refusal::Invalid,
    }
}

/// The one value of a field, if there is one.
fn text(fields: &HeaderMap, name: &HeaderName) -> Result<Option<Arc<str>>, Failure> {
    let mut values = fields.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(text), None) if text.len() <= limits::FIELD_NAME => Ok(Some(text.into())),
        _ => Err(Failure::Malformed("the consumer's name")),
    }
}

/// The consumer of that name, else someone who is called so.
fn identity(registry: &Registry, name: Option<Arc<str>>) -> Identity {
    let known = name.as_deref().and_then(|name| registry.by_name(name));
    match known {
        Some(index) => registry.identity(index),
        None => Identity { id: name.unwrap_or_default(), ..Identity::default() },
    }
}

/// A field that is about the request, not about the connection it came over, nor framing.
fn name_of(name: &str, at: &str) -> Result<HeaderName, Unfit> {
    let unfit = |problem: &str| Err((at.to_string(), format!("{name:?} {problem}")));
    let known = Name::classify(name.as_bytes());
    if write::hop_by_hop(known) || matches!(known, Name::Host | Name::ContentLength | Name::Expect)
    {
        return unfit("is about one connection only: leave it out");
    }
    HeaderName::try_from(name).or_else(|_| unfit("is no field name"))
}
