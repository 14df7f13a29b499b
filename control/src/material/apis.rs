//! What requests are held against, out of the files that describe it.

use std::collections::BTreeMap;
use std::sync::Arc;

use contract::snapshot::{self as flat, Snapshot};

use super::openapi::{self, Described};
use super::{Load, Material};
use crate::spec::{ApiDocument, PathMatch, Route, SchemaSource, Severity, Spec, Validate};

/// Descriptions by what they were made from.
pub(super) type Apis = BTreeMap<String, Arc<Described>>;

/// Notes of one API that are told; more are counted.
const NOTES: usize = 20;

impl Material {
    /// What an API of the spec describes.
    pub fn api(&self, api: &ApiDocument) -> Option<&Described> {
        self.apis.get(&api_key(api)).map(Arc::as_ref)
    }

    /// What a route says of its requests itself.
    pub fn own_rules(&self, validate: &Validate) -> Option<&Described> {
        self.apis.get(&own_key(validate)).map(Arc::as_ref)
    }

    /// Files that were read because others refer to them.
    pub fn more_files(&self) -> impl Iterator<Item = &str> {
        let protos = self.protos.values().flat_map(|proto| &proto.files);
        let files = self.apis.values().flat_map(|api| &api.files).chain(protos);
        files.map(String::as_str)
    }

    /// What of `snapshot`, compiled from `spec`, came from descriptions.
    pub(super) fn recover_apis(&mut self, spec: &Spec, snapshot: &Snapshot) {
        let validation = &snapshot.validation;
        for (route, flat) in spec.routes.iter().zip(&snapshot.routes) {
            let (Some(validate), Some(rules)) = (&route.validate, &flat.validation) else {
                continue;
            };
            let Some(api) = validation.apis.get(rules.api as usize) else { continue };
            let key = match &validate.api {
                Some(name) => match spec.apis.iter().find(|one| one.name == *name) {
                    Some(api) => api_key(api),
                    None => continue,
                },
                None => own_key(validate),
            };
            self.apis.entry(key).or_insert_with(|| Arc::new(recovered(api, &validation.schemas)));
        }
    }
}

fn recovered(api: &flat::Api, schemas: &[String]) -> Described {
    let mut described = Described { operations: api.operations.clone(), ..Described::default() };
    let mut moved: BTreeMap<u32, u32> = BTreeMap::new();
    for operation in &mut described.operations {
        for index in indexes(operation) {
            let next = moved.len() as u32;
            let place = *moved.entry(*index).or_insert(next);
            if place == next {
                let text = schemas.get(*index as usize).cloned().unwrap_or_default();
                described.schemas.push(text);
            }
            *index = place;
        }
    }
    described
}

/// The indexes of schemas in an operation.
pub fn indexes(operation: &mut flat::Operation) -> impl Iterator<Item = &mut u32> {
    let parameters = operation.parameters.iter_mut().filter_map(|one| one.schema.as_mut());
    let content = operation.body.iter_mut().flat_map(|body| &mut body.content);
    parameters.chain(content.filter_map(|one| one.schema.as_mut()))
}

fn api_key(api: &ApiDocument) -> String {
    format!("{}\0{}", api.openapi, api.base_path.as_deref().unwrap_or("\0"))
}

fn own_key(validate: &Validate) -> String {
    serde_json::json!([validate.parameters, validate.body]).to_string()
}

impl Load<'_> {
    /// Reads every description, and looks whether it has what routes ask of it.
    pub(super) fn apis(&mut self, spec: &Spec) {
        for (at, api) in spec.apis.iter().enumerate() {
            let (field, key) = (format!("apis[{at}].openapi"), api_key(api));
            if self.material.apis.contains_key(&key) {
                continue;
            }
            match openapi::api(&api.openapi, api.base_path.as_deref()) {
                Ok(described) => {
                    for note in described.notes.iter().take(NOTES) {
                        let (code, field) = ("unvalidated-parameter", field.clone());
                        self.fault(Severity::Warning, code, field, &api.openapi, note.clone());
                    }
                    self.material.apis.insert(key, Arc::new(described));
                }
                Err(broken) => {
                    let (code, message) = ("bad-openapi", broken.to_string());
                    self.fault(Severity::Error, code, field, &api.openapi, message);
                    self.keep_api(key);
                }
            }
        }
        for (at, route) in spec.routes.iter().enumerate() {
            let Some(validate) = &route.validate else { continue };
            match &validate.api {
                Some(name) => self.operation(spec, at, route, name),
                None => self.own(at, validate),
            }
        }
    }

    fn own(&mut self, at: usize, validate: &Validate) {
        let key = own_key(validate);
        if self.material.apis.contains_key(&key) {
            return;
        }
        match openapi::own(validate.parameters.own(), validate.body.own()) {
            Ok(described) => {
                self.material.apis.insert(key, Arc::new(described));
            }
            Err((name, broken)) => {
                let field = format!("routes[{at}].validate.{name}");
                let value = match validate.body.own().map(|body| &body.schema) {
                    Some(SchemaSource::File(file)) if name == "body.schema" => file.as_str(),
                    _ => "",
                };
                self.fault(Severity::Error, "bad-schema", field, value, broken.to_string());
                self.keep_api(key);
            }
        }
    }

    /// A route that no operation is for would be refused whole.
    fn operation(&mut self, spec: &Spec, at: usize, route: &Route, name: &str) {
        let Some(api) = spec.apis.iter().find(|one| one.name == name) else { return };
        let Some(described) = self.material.apis.get(&api_key(api)).cloned() else { return };
        let methods = &route.matches.methods;
        let served = |operation: &flat::Operation| {
            let head = operation.method == "GET" && methods.iter().any(|method| method == "HEAD");
            let method = methods.is_empty() || methods.contains(&operation.method) || head;
            method
                && match &route.matches.path {
                    PathMatch::Exact(path) => openapi::meets(&operation.template, path, false),
                    PathMatch::Prefix(path) => openapi::meets(&operation.template, path, true),
                    // Whether an expression and a template meet is not told so easily.
                    PathMatch::Regex(_) | PathMatch::Template(_) => true,
                }
        };
        if described.operations.iter().any(served) {
            return;
        }
        let examples: Vec<String> = described.operations.iter().take(3).map(told).collect();
        let message = format!(
            "`{name}` has no operation for this route; it has {} (set the API's `base_path` to what \
             goes before its paths)",
            examples.join(", ")
        );
        let field = format!("routes[{at}].validate.api");
        self.fault(Severity::Error, "unknown-operation", field, name, message);
    }

    fn keep_api(&mut self, key: String) {
        if let Some(before) = self.before.and_then(|before| before.apis.get(&key)) {
            self.material.apis.insert(key, Arc::clone(before));
        }
    }
}

fn told(operation: &flat::Operation) -> String {
    format!("{} {}", operation.method, operation.template)
}
