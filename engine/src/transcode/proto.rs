//! A set of descriptors, ready for use: its types, its methods, and the http rules these bring.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prost::Message as _;
use prost_reflect::{DescriptorPool, MethodDescriptor};

use super::schema::{Known, MessageIndex, Schema};
use super::wire::{Fields, WireType};
use crate::limits;

/// A set of descriptors.
#[derive(Debug)]
pub struct Proto {
    pub name: Box<str>,
    pub schema: Schema,
    /// In the order of their services.
    pub methods: Vec<Method>,
    services: HashMap<Box<str>, std::ops::Range<usize>>,
}

/// A method of a service.
#[derive(Debug)]
pub struct Method {
    /// `pkg.Service.Method`
    pub name: Box<str>,
    /// `/pkg.Service/Method`
    pub path: Box<str>,
    pub input: MessageIndex,
    pub output: MessageIndex,
    pub client_streaming: bool,
    pub server_streaming: bool,
    /// By its annotation (`google.api.http`).
    pub rules: Vec<Rule>,
}

/// One binding of an http rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// `*`: any.
    pub method: String,
    pub path: String,
    pub body: String,
    pub response_body: String,
}

/// Field of `google.protobuf.MethodOptions`.
const HTTP: u32 = 72_295_728;

impl Proto {
    /// # Errors
    /// The bytes are no set of descriptors, or one that does not hang together.
    pub fn build(name: &str, descriptors: &[u8]) -> Result<Proto, String> {
        let pool = DescriptorPool::decode(descriptors).map_err(|error| error.to_string())?;
        let schema = Schema::of(&pool)?;
        let mut methods = Vec::new();
        let mut services = HashMap::new();
        for service in pool.services() {
            let start = methods.len();
            for method in service.methods() {
                let index = |name: &str| schema.find(name).ok_or(format!("{name} is missing"));
                methods.push(Method {
                    name: method.full_name().into(),
                    path: format!("/{}/{}", service.full_name(), method.name()).into(),
                    input: index(method.input().full_name())?,
                    output: index(method.output().full_name())?,
                    client_streaming: method.is_client_streaming(),
                    server_streaming: method.is_server_streaming(),
                    rules: annotation(&method)
                        .map_err(|problem| format!("{}: {problem}", method.full_name()))?,
                });
            }
            services.insert(service.full_name().into(), start..methods.len());
        }
        Ok(Proto { name: name.into(), schema, methods, services })
    }

    /// The places of a service's methods.
    pub fn service(&self, name: &str) -> Option<std::ops::Range<usize>> {
        self.services.get(name).cloned()
    }

    /// Names of all services, in order.
    pub fn service_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.services.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        names
    }

    /// Whether a message is `google.api.HttpBody`: a body as it is.
    pub fn is_http_body(&self, index: MessageIndex) -> bool {
        self.schema.message(index).known == Known::HttpBody
    }
}

/// The bindings of a method's annotation. Read from its bytes, as a set may do without the file that
/// defines the annotation.
fn annotation(method: &MethodDescriptor) -> Result<Vec<Rule>, String> {
    let options = method.options().encode_to_vec();
    let mut rules = Vec::new();
    let mut fields = Fields::of(&options);
    while let Some(raw) = fields.next().map_err(|error| error.to_string())? {
        if raw.number == HTTP && raw.wire == WireType::Bytes {
            rule(raw.bytes, 0, &mut rules)?;
        }
    }
    Ok(rules)
}

fn rule(bytes: &[u8], depth: usize, out: &mut Vec<Rule>) -> Result<(), String> {
    let malformed = |_| "its google.api.http is malformed".to_string();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut own = Rule::default();
    let mut more = Vec::new();
    let mut fields = Fields::of(bytes);
    while let Some(raw) = fields.next().map_err(malformed)? {
        let mut pattern = |method: &str| {
            (own.method, own.path) = (method.into(), text(raw.bytes));
        };
        match raw.number {
            2 => pattern("GET"),
            3 => pattern("PUT"),
            4 => pattern("POST"),
            5 => pattern("DELETE"),
            6 => pattern("PATCH"),
            7 => own.body = text(raw.bytes),
            8 => {
                let mut parts = Fields::of(raw.bytes);
                while let Some(part) = parts.next().map_err(malformed)? {
                    match part.number {
                        1 => own.method = text(part.bytes),
                        2 => own.path = text(part.bytes),
                        _ => {}
                    }
                }
            }
            11 => more.push(raw.bytes),
            12 => own.response_body = text(raw.bytes),
            _ => {}
        }
    }
    if own.path.is_empty() {
        return Err("its google.api.http has no path".into());
    }
    out.push(own);
    for bytes in more {
        // Additional bindings have none of their own (`google/api/http.proto`).
        if depth > 0 {
            return Err("an additional binding has additional bindings".into());
        }
        if out.len() >= limits::BINDINGS {
            return Err("it has too many bindings".into());
        }
        rule(bytes, depth + 1, out)?;
    }
    Ok(())
}

/// Sets that earlier plans had, by a digest of their bytes.
#[derive(Debug, Default)]
pub struct Memory {
    protos: Mutex<HashMap<[u8; 32], Weak<Proto>>>,
}

impl Memory {
    /// The set of these descriptors: that of an earlier plan, if it is still there.
    ///
    /// # Errors
    /// As [`Proto::build`].
    pub fn proto(&self, name: &str, descriptors: &[u8]) -> Result<Arc<Proto>, String> {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        digest.update(&(name.len() as u64).to_le_bytes());
        digest.update(name.as_bytes());
        digest.update(descriptors);
        let mut key = [0; 32];
        key.copy_from_slice(digest.finish().as_ref());
        let mut protos = self.protos.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = protos.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        protos.retain(|_, proto| proto.strong_count() > 0);
        let built = Arc::new(Proto::build(name, descriptors)?);
        protos.insert(key, Arc::downgrade(&built));
        Ok(built)
    }
}
