//! What requests are held against: each schema and each API once, whichever routes have it.

use std::collections::HashMap;

use contract::snapshot as flat;

use crate::material::{Described, Material, indexes};
use crate::spec::{Spec, Undocumented, Validate, ValidateMode};

/// What routes' rules become.
pub struct Rules<'a> {
    spec: &'a Spec,
    material: &'a Material,
    pub validation: flat::Validation,
    schemas: HashMap<&'a str, flat::SchemaIndex>,
    /// By what they were made from.
    apis: HashMap<*const Described, flat::ApiIndex>,
}

impl<'a> Rules<'a> {
    pub fn new(spec: &'a Spec, material: &'a Material) -> Rules<'a> {
        let validation = flat::Validation::default();
        Rules { spec, material, validation, schemas: HashMap::new(), apis: HashMap::new() }
    }

    /// The rules of a route. Those whose description is missing refuse everything: the index is past the
    /// end, so such a snapshot is not decoded.
    pub fn route(&mut self, validate: &'a Validate) -> flat::RouteValidation {
        let named = validate.api.as_ref();
        let api = named.and_then(|name| self.spec.apis.iter().find(|one| one.name == *name));
        let (described, name) = match api {
            Some(api) => (self.material.api(api), api.name.as_str()),
            None => (self.material.own_rules(validate), ""),
        };
        flat::RouteValidation {
            api: described.map_or(u32::MAX, |described| self.api(described, name)),
            parameters: validate.parameters.is_on(),
            body: validate.body.is_on(),
            max_bytes: u32::try_from(validate.max_bytes).unwrap_or(u32::MAX),
            dry_run: validate.mode == ValidateMode::Log,
            refuse_unknown: validate.undocumented == Undocumented::Refuse,
        }
    }

    fn api(&mut self, described: &'a Described, name: &str) -> flat::ApiIndex {
        let key = std::ptr::from_ref(described);
        if let Some(index) = self.apis.get(&key) {
            return *index;
        }
        let mut operations = described.operations.clone();
        for operation in &mut operations {
            for index in indexes(operation) {
                let text = described.schemas.get(*index as usize).map_or("", String::as_str);
                *index = self.schema(text);
            }
        }
        let index = self.validation.apis.len() as u32;
        self.validation.apis.push(flat::Api { name: name.into(), operations });
        self.apis.insert(key, index);
        index
    }

    fn schema(&mut self, text: &'a str) -> flat::SchemaIndex {
        let next = self.validation.schemas.len() as u32;
        let index = *self.schemas.entry(text).or_insert(next);
        if index == next {
            self.validation.schemas.push(text.into());
        }
        index
    }
}
