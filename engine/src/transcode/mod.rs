//! Between JSON over HTTP and gRPC, by the http rules of a service (`google/api/http.proto`).
//!
//! A request in JSON becomes a call: its path finds the method, and path, query and body become the
//! message. It goes the way of any call; what comes back becomes JSON, message by message where it is a
//! stream. A status that is no OK becomes an HTTP status and a body (`google.rpc.Status`). The reverse,
//! for unary calls, is in `reverse.rs`.

mod binding;
mod forward;
mod frames;
mod fuzz;
mod inward;
mod json;
mod outward;
mod params;
mod percent;
mod proto;
mod reverse;
mod schema;
mod split;
mod status;
mod table;
mod template;
#[cfg(test)]
mod tests;
mod unary;
mod wire;

use std::sync::Arc;

use contract::snapshot::{
    PrintJson, RouteTranscode, StreamForm, TranscodeTo, UnknownQuery as Flat,
};

pub use self::forward::forward;
pub use self::fuzz::fuzz_transcode;
pub use self::inward::Inward;
pub use self::outward::Outward;
pub use self::proto::{Memory, Proto};
pub use self::unary::Unary;

use self::binding::Binding;
use self::json::{Printing, Reading};
use self::params::UnknownQuery;
use self::proto::Rule;
use self::table::Table;

/// How the requests of a route are transcoded.
#[derive(Debug)]
pub struct Transcode {
    pub proto: Arc<Proto>,
    pub to: TranscodeTo,
    bindings: Vec<Binding>,
    table: Table,
    /// Places of the methods that the route serves.
    methods: Vec<usize>,
    print: PrintJson,
    streams: StreamForm,
    unknown_query: UnknownQuery,
    ignore_unknown: bool,
    details: bool,
    any_case: bool,
    /// Largest message of a request, and of an answer, in bytes.
    max_request: usize,
    max_response: usize,
    /// All that it was made from, besides the set.
    from: RouteTranscode,
}

impl PartialEq for Transcode {
    fn eq(&self, other: &Transcode) -> bool {
        Arc::ptr_eq(&self.proto, &other.proto) && self.from == other.from
    }
}

impl Transcode {
    /// # Errors
    /// The field of the spec's `transcode`, and what is wrong with it.
    pub fn build(from: &RouteTranscode, proto: Arc<Proto>) -> Result<Transcode, (String, String)> {
        let mut methods = Vec::new();
        for (at, name) in from.services.iter().enumerate() {
            let own = proto.service(name).ok_or_else(|| {
                let known = proto.service_names().join(", ");
                let problem = format!("`{}` has no service `{name}`; it has: {known}", proto.name);
                (format!("services[{at}]"), problem)
            })?;
            methods.extend(own);
        }
        for rule in &from.rules {
            let known = |place: &&usize| {
                proto.methods.get(**place).is_some_and(|method| *method.name == *rule.selector)
            };
            if !methods.iter().any(|place| known(&place)) {
                let problem =
                    format!("the services of the route have no method `{}`", rule.selector);
                return Err((format!("bindings[{}].selector", rule.at), problem));
            }
        }
        let mut built = Transcode {
            to: from.to,
            bindings: Vec::new(),
            table: Table::default(),
            methods,
            print: from.print,
            streams: from.streams,
            unknown_query: match &from.unknown_query {
                Flat::Refuse => UnknownQuery::Refuse,
                Flat::Ignore => UnknownQuery::Ignore,
                Flat::Listed(names) => {
                    UnknownQuery::Listed(names.iter().map(|name| name.as_str().into()).collect())
                }
            },
            ignore_unknown: from.ignore_unknown_fields,
            details: from.status_details,
            any_case: from.any_case_enums,
            max_request: from.max_request_bytes as usize,
            max_response: from.max_response_bytes as usize,
            from: from.clone(),
            proto,
        };
        for place in built.methods.clone() {
            built.bind_method(place)?;
        }
        if built.bindings.is_empty() {
            let problem = "no method has an http rule (google.api.http); write `bindings`, or set \
                           `auto_mapping: true`";
            return Err(("services".into(), problem.into()));
        }
        Ok(built)
    }

    fn bind_method(&mut self, place: usize) -> Result<(), (String, String)> {
        let proto = self.proto.clone();
        let Some(method) = proto.methods.get(place) else { return Ok(()) };
        // The route's own go in place of the annotation.
        let own = self.from.rules.iter().filter(|rule| *rule.selector == *method.name);
        let own: Vec<(String, Rule)> = own
            .map(|rule| {
                let from = rule.clone();
                let rule = Rule {
                    method: from.method,
                    path: from.path,
                    body: from.body,
                    response_body: from.response_body,
                };
                (format!("bindings[{}]", from.at), rule)
            })
            .collect();
        let rules: Vec<(String, Rule)> = match own.is_empty() {
            false => own,
            true => method.rules.iter().map(|rule| ("services".into(), rule.clone())).collect(),
        };
        if rules.is_empty()
            && self.from.auto_mapping
            && let Some(binding) = Binding::auto(&proto, place)
        {
            return self.add("auto_mapping".into(), &method.name, binding);
        }
        for (field, rule) in rules {
            let binding = Binding::of(&proto, place, &rule).map_err(|bad| {
                // With an annotation it is the proto that is wrong.
                let told = format!("{}, {}: {}", method.name, bad.field, bad.problem);
                (field.clone(), told)
            })?;
            self.add(field, &method.name, binding)?;
        }
        Ok(())
    }

    fn add(&mut self, field: String, name: &str, binding: Binding) -> Result<(), (String, String)> {
        if self.bindings.len() >= crate::limits::BINDINGS {
            return Err((field, "there are too many bindings".into()));
        }
        let place = self.bindings.len();
        // The reverse asks for a method's path, and not for a path's method.
        if self.to == TranscodeTo::Grpc
            && let Err(other) = self.table.add(&binding.http_method, &binding.template, place)
        {
            let taken = self.bindings.get(other).and_then(|other| other.method(&self.proto));
            let problem = format!(
                "{} {} of {name} is that of {}, too",
                binding.http_method,
                self.path_of(&binding),
                taken.map_or("another method", |method| &method.name)
            );
            return Err((field, problem));
        }
        self.bindings.push(binding);
        Ok(())
    }

    /// The path that a binding has in people's words.
    fn path_of(&self, binding: &Binding) -> String {
        use self::template::Segment;
        let mut out = String::new();
        for segment in &binding.template.segments {
            out.push('/');
            match segment {
                Segment::Literal(text) => out.push_str(&String::from_utf8_lossy(text)),
                Segment::One => out.push('*'),
                Segment::Rest => out.push_str("**"),
            }
        }
        if !binding.template.verb.is_empty() {
            out.push(':');
            out.push_str(&String::from_utf8_lossy(&binding.template.verb));
        }
        out
    }

    fn reading(&self) -> Reading<'_> {
        Reading {
            schema: &self.proto.schema,
            ignore_unknown: self.ignore_unknown,
            any_case: self.any_case,
        }
    }

    /// `pretty`: if that is asked for.
    fn printing(&self, pretty: bool) -> Printing<'_> {
        Printing {
            schema: &self.proto.schema,
            always: self.print.always,
            enum_numbers: self.print.enums_as_ints,
            proto_names: self.print.proto_names,
            pretty: pretty && self.print.whitespace,
        }
    }
}
