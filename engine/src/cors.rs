//! Cross-origin requests (Fetch standard, "CORS protocol"), answered at the edge.
//!
//! A preflight never reaches an upstream, and is answered before anyone is asked for a credential:
//! browsers send none with it. All other answers on the route, ours too, get the fields that let scripts
//! read them. Upstreams are relieved of the matter: what they say of it is dropped.
//!
//! Origins that are not listed are told nothing, and nothing else happens to them: their preflight gets
//! the same 204 without the fields (as Kong and Envoy do), and the browser refuses by itself. A status
//! of our own would change nothing for browsers, which look for the fields first, and CORS keeps no
//! one else out: it protects users from foreign scripts, not upstreams from clients.

use std::collections::HashSet;

use contract::record::Reason;
use contract::snapshot;

use crate::exchange::Request;
use crate::io::Chunk;
use crate::limits;
use crate::local_reply::LocalReply;
use crate::message::{MAX_METHOD, Name, RequestHead, fields};
use crate::plan::Route;

/// What other origins' scripts may do on a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    origins: Origins,
    /// The value of `Access-Control-Allow-Methods`; `None`: whatever is asked for.
    methods: Option<Box<[u8]>>,
    /// Lower case; `None`: whatever is asked for.
    headers: Option<Box<[Box<str>]>>,
    /// The value of `Access-Control-Expose-Headers`.
    expose: Box<[u8]>,
    credentials: bool,
    max_age_s: u32,
    private_network: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Origins {
    Any,
    Listed {
        exact: HashSet<Box<[u8]>>,
        /// Scheme with `://`, and what follows one or more labels: `.example.com:8443`.
        below: Box<[Below]>,
    },
}

type Below = (Box<[u8]>, Box<[u8]>);

/// What is wrong with a route's rules: the field, and what to write instead.
type Unfit = (String, String);

/// Methods of routes that name none.
const USUAL: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
/// What clients of gRPC-Web have to see of an answer without a body.
const GRPC: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];

impl Cors {
    /// The rules of a route with these methods.
    ///
    /// # Errors
    /// A name is none, an origin is none, or every origin would act with the user's credentials.
    pub fn build(from: &snapshot::Cors, methods: &[String], grpc_web: bool) -> Result<Cors, Unfit> {
        let methods = match (&from.methods[..], methods) {
            ([], []) => USUAL.map(String::from).into(),
            ([], own) => own.to_vec(),
            (listed, _) => listed.to_vec(),
        };
        let mut expose = from.expose.clone();
        if grpc_web {
            expose.extend(GRPC.map(String::from));
        }
        for (field, names) in
            [("methods", &methods), ("headers", &from.headers), ("expose", &expose)]
        {
            for (at, name) in names.iter().enumerate() {
                if !is_token(name.as_bytes()) {
                    return Err((format!("cors.{field}[{at}]"), format!("`{name}` is no name")));
                }
            }
        }
        let any = |names: &[String]| names.iter().any(|name| name == "*");
        let lower = |name: &String| name.to_ascii_lowercase().into();
        Ok(Cors {
            origins: Origins::build(&from.origins, from.credentials)?,
            methods: (!any(&methods)).then(|| methods.join(", ").into_bytes().into()),
            headers: (!from.headers.is_empty() && !any(&from.headers))
                .then(|| from.headers.iter().map(lower).collect()),
            expose: expose.join(", ").into_bytes().into(),
            credentials: from.credentials,
            max_age_s: from.max_age_s,
            private_network: from.private_network,
        })
    }

    /// Adds what every answer has to say to a request from `origin`. Returns whether it is allowed.
    fn share(&self, origin: Option<&[u8]>, out: &mut Vec<(&'static str, Vec<u8>)>) -> bool {
        let Origins::Listed { .. } = &self.origins else {
            // Said to those without an origin as well, so that caches may keep one answer for all.
            out.push(("Access-Control-Allow-Origin", b"*".to_vec()));
            return true;
        };
        // Also where nothing is allowed: another origin's answer is another one.
        out.push(("Vary", b"Origin".to_vec()));
        let Some(origin) = origin.filter(|origin| self.origins.contain(origin)) else {
            return false;
        };
        out.push(("Access-Control-Allow-Origin", origin.to_vec()));
        if self.credentials {
            out.push(("Access-Control-Allow-Credentials", b"true".to_vec()));
        }
        true
    }

    /// Adds what a preflight is answered.
    fn answer(&self, asked: &Preflight<'_>, out: &mut Vec<(&'static str, Vec<u8>)>) {
        if !self.share(asked.origin, out) {
            return;
        }
        let methods = self.methods.as_deref().unwrap_or(asked.method);
        out.push(("Access-Control-Allow-Methods", methods.to_vec()));
        let mut headers = Vec::new();
        for name in asked.headers.iter().filter(|name| self.allows_header(name)) {
            if !headers.is_empty() {
                headers.extend_from_slice(b", ");
            }
            headers.extend_from_slice(name);
        }
        if !headers.is_empty() {
            out.push(("Access-Control-Allow-Headers", headers));
        }
        out.push(("Access-Control-Max-Age", self.max_age_s.to_string().into_bytes()));
        if self.private_network && asked.private_network {
            out.push(("Access-Control-Allow-Private-Network", b"true".to_vec()));
        }
    }

    fn allows_header(&self, name: &[u8]) -> bool {
        let same = |allowed: &str| allowed.as_bytes().eq_ignore_ascii_case(name);
        let listed = |all: &[Box<str>]| all.iter().any(|allowed| same(allowed));
        is_token(name) && self.headers.as_deref().is_none_or(listed)
    }
}

/// What a preflight asks ("CORS-preflight fetch").
#[derive(Debug, PartialEq, Eq)]
struct Preflight<'a> {
    origin: Option<&'a [u8]>,
    method: &'a [u8],
    headers: Vec<&'a [u8]>,
    private_network: bool,
}

/// The method that a preflight asks about; `None`: the request is none.
pub fn preflight<'a>(head: &RequestHead, bytes: &'a [u8]) -> Option<&'a [u8]> {
    if head.method(bytes) != b"OPTIONS" {
        return None;
    }
    head.value(bytes, Name::Origin)?;
    let method = head.other(bytes, b"access-control-request-method")?;
    (is_token(method) && method.len() <= MAX_METHOD).then_some(method)
}

/// Answers preflights, and adds to the answers of all other requests what scripts may read.
///
/// # Errors
/// The answer to a preflight.
pub fn admit(request: &mut Request, route: &Route) -> Result<(), LocalReply> {
    let Some(cors) = &route.cors else { return Ok(()) };
    let bytes = request.bytes.as_ref().map_or(&[][..], Chunk::bytes);
    let (head, out) = (&request.head, &mut request.answer_fields);
    let Some(method) = preflight(head, bytes) else {
        if cors.share(origin(head, bytes), out) && !cors.expose.is_empty() {
            out.push(("Access-Control-Expose-Headers", cors.expose.to_vec()));
        }
        return Ok(());
    };
    cors.answer(&read(head, bytes, method), out);
    Err(LocalReply::new(204, Reason::Preflight))
}

/// Whether an answer's field is about this: on routes with rules of their own, upstreams have no say.
pub fn is_ours(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"access-control-";
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

fn read<'a>(head: &RequestHead, bytes: &'a [u8], method: &'a [u8]) -> Preflight<'a> {
    let named = |name: &'static [u8]| {
        let fields = head.fields.iter().filter(|field| !field.drop && field.id == Name::Other);
        fields
            .filter(|field| field.name.of(bytes).eq_ignore_ascii_case(name))
            .map(|field| field.value.of(bytes))
    };
    let headers = named(b"access-control-request-headers")
        .flat_map(|line| line.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
        .take(limits::CORS_HEADERS);
    Preflight {
        origin: origin(head, bytes),
        method,
        headers: headers.collect(),
        private_network: named(b"access-control-request-private-network").any(|v| v == b"true"),
    }
}

/// Whose script sends the request. Of two nobody knows which is meant.
fn origin<'a>(head: &RequestHead, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let mut all = head.fields.iter().filter(|field| field.id == Name::Origin);
    let first = all.next()?;
    all.next().is_none().then(|| first.value.of(bytes))
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| fields::is_tchar(byte))
}

impl Origins {
    fn build(from: &snapshot::Origins, credentials: bool) -> Result<Origins, Unfit> {
        let listed = match from {
            // The Fetch standard refuses `*` with credentials. To say each origin in its place would let
            // every page in the world act as its visitors.
            snapshot::Origins::Any if credentials => {
                let problem = "is any, with credentials; list the origins that may act as the user";
                return Err(("cors.origins".into(), problem.into()));
            }
            snapshot::Origins::Any => return Ok(Origins::Any),
            snapshot::Origins::Listed(listed) => listed,
        };
        let (mut exact, mut below) = (HashSet::new(), Vec::new());
        for (at, text) in listed.iter().enumerate() {
            let unfit = |problem: &str| (format!("cors.origins[{at}]"), problem.to_string());
            // Browsers send them in lower case (URL standard).
            let origin = text.to_ascii_lowercase();
            if origin == "null" && credentials {
                // What any page can make itself, in a frame with a sandbox.
                return Err(unfit("is `null`, which anyone can be; not with credentials"));
            }
            if origin == "null" {
                exact.insert(origin.into_bytes().into());
                continue;
            }
            let (scheme, host) = origin
                .split_once("://")
                .ok_or_else(|| unfit("is no origin, such as `https://app.example.com`"))?;
            let suffix = host.strip_prefix('*');
            let name = suffix.map_or(Some(host), |suffix| suffix.strip_prefix('.'));
            let plain = |byte: u8| byte.is_ascii_graphic() && !b"/?#@*,\"\\".contains(&byte);
            if scheme.is_empty()
                || !scheme
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
                || !name.is_some_and(|name| !name.is_empty() && name.bytes().all(plain))
            {
                return Err(unfit(
                    "is no origin: scheme, host and port, such as `https://app.example.com`, or \
                     `https://*.example.com` for all below it",
                ));
            }
            match suffix {
                None => drop(exact.insert(origin.into_bytes().into())),
                Some(suffix) => {
                    let scheme = format!("{scheme}://").into_bytes();
                    below.push((scheme.into(), suffix.as_bytes().into()));
                }
            }
        }
        Ok(Origins::Listed { exact, below: below.into() })
    }

    /// Byte by byte (Fetch standard, "CORS check").
    fn contain(&self, origin: &[u8]) -> bool {
        match self {
            Origins::Any => true,
            Origins::Listed { exact, below } => {
                exact.contains(origin)
                    || below.iter().any(|(scheme, suffix)| {
                        let rest = origin.strip_prefix(&**scheme);
                        rest.and_then(|rest| rest.strip_suffix(&**suffix)).is_some_and(are_labels)
                    })
            }
        }
    }
}

/// Whether this can stand before a domain: nothing in it may end the host, or the suffix would be that
/// of a path or a port.
fn are_labels(text: &[u8]) -> bool {
    let plain =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(byte);
    text.split(|&byte| byte == b'.').all(|label| !label.is_empty() && label.iter().all(plain))
}

#[cfg(test)]
mod tests;
