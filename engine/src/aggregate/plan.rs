//! An aggregate as it is run: templates compiled, what calls need of each other derived from them.

use std::sync::Arc;

use contract::snapshot::{self, AggregateBody, CallMode, CallSource, Timeouts};

use super::body::BodyTemplate;
use super::dotted::Dotted;
use crate::payload::json::Json;
use crate::payload::project::{self, Tree};
use crate::plan::Route;
use crate::template::{FieldName, Reference, Scope, Template};
use crate::transcode::{Proto, Unary};

/// A compiled aggregate.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    pub calls: Box<[Call]>,
    pub body: Body,
    pub status: u16,
    pub join: Box<[Join]>,
    pub projection: Projection,
    /// Lower-case names, and their values.
    pub headers: Box<[(Box<str>, Template)]>,
    pub deadline_ms: u32,
    /// Calls under way at once.
    pub concurrency: usize,
    /// Bodies of all answers together, in bytes.
    pub max_bytes: usize,
    pub errors: bool,
    pub server_timing: bool,
    pub stream: bool,
    /// A template asks for the request's body.
    pub reads_body: bool,
    /// Fields of the request that the answer depends on, as `Vary` names them.
    pub vary: Box<str>,
    /// What templates ask of the request, and what is forwarded of it, without its body.
    pub asks: Box<[Reference]>,
    /// It depends on who calls.
    pub private: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub name: Box<str>,
    pub source: Source,
    /// Calls whose answers its templates name, and those that have to end before for another reason.
    pub needs: Box<[usize]>,
    pub after: Box<[usize]>,
    pub when: Option<Template>,
    pub mode: Mode,
    pub repeat: Option<Repeat>,
    pub unwrap: Dotted,
    pub projection: Projection,
    pub hidden: bool,
    /// In a grouped answer.
    pub key: Box<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Http(Box<HttpCall>),
    Static(BodyTemplate),
}

#[derive(Clone, Debug, PartialEq)]
pub struct HttpCall {
    /// Index into the plan's upstreams.
    pub upstream: u32,
    /// Time-outs and tries.
    pub route: Route,
    pub method: Box<str>,
    pub path: Template,
    /// Empty segments of the path as it is written. What has more lacks a value.
    pub empty_segments: usize,
    /// Names, percent-encoded, and values.
    pub query: Box<[(Box<[u8]>, Template)]>,
    /// Lower-case names, and values.
    pub headers: Box<[(Box<str>, Template)]>,
    pub body: Option<BodyTemplate>,
    /// [`Reference::Header`] each.
    pub forward_headers: Box<[(Box<str>, Reference)]>,
    pub forward_query: Box<[Box<str>]>,
    /// [`Reference::Cookie`] each.
    pub forward_cookies: Box<[(Box<str>, Reference)]>,
    /// 0: as long as the whole.
    pub timeout_ms: u32,
    pub success: Box<[(u16, u16)]>,
    pub pass: Box<[u16]>,
    pub max_bytes: usize,
    /// It is a call of gRPC: the body is its message.
    pub grpc: Option<Unary>,
}

impl HttpCall {
    pub fn succeeds(&self, status: u16) -> bool {
        self.success.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }

    /// RFC 9110 §9.2.1.
    pub fn is_safe(&self) -> bool {
        matches!(&*self.method, "GET" | "HEAD" | "OPTIONS")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    Required,
    Optional,
    Default(Json<'static>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Repeat {
    pub list: Template,
    pub key: Dotted,
    pub max_items: usize,
    pub concurrency: usize,
    pub batch: Option<Batch>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub size: usize,
    pub by: Dotted,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Group,
    Deep,
    Append,
    Template(BodyTemplate),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    pub list: Dotted,
    pub key: Dotted,
    pub call: usize,
    pub from: Dotted,
    pub by: Dotted,
    pub into: Dotted,
    pub many: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Projection {
    allow: Option<Tree>,
    deny: Option<Tree>,
}

impl Projection {
    fn build(from: &snapshot::Projection) -> Result<Projection, (&'static str, String)> {
        let tree = |name, paths: &[String]| match paths {
            [] => Ok(None),
            paths => {
                let tree = Tree::parse(paths.iter().map(String::as_str));
                tree.map(Some).map_err(|problem| (name, problem))
            }
        };
        Ok(Projection { allow: tree("allow", &from.allow)?, deny: tree("deny", &from.deny)? })
    }

    pub fn apply(&self, value: &mut Json<'_>) {
        if let Some(tree) = &self.allow {
            project::allow(value, tree);
        }
        if let Some(tree) = &self.deny {
            project::deny(value, tree);
        }
    }
}

/// What is wrong, and in which field of the aggregate.
pub type Problem = (String, String);

impl Aggregate {
    /// `request`: what templates have of the request. `upstreams`: how many there are.
    ///
    /// # Errors
    /// A template that is none, or asks for what is not there; calls that wait for each other.
    pub fn build(
        from: &snapshot::Aggregate,
        request: &Scope,
        upstreams: usize,
        protos: &[Arc<Proto>],
    ) -> Result<Aggregate, Problem> {
        let names: Vec<String> = from.calls.iter().map(|call| call.name.clone()).collect();
        let scope = request.clone().with_body().with_calls(names);
        let mut uses = Uses::default();
        let mut calls = Vec::with_capacity(from.calls.len());
        for (at, call) in from.calls.iter().enumerate() {
            let build = Builder { scope: &scope, uses: &mut uses, upstreams, protos };
            let call = build.call(call);
            calls.push(call.map_err(|(field, problem)| (format!("calls[{at}].{field}"), problem))?);
        }
        acyclic(&calls)?;
        let response = |(field, problem): (String, String)| (format!("response.{field}"), problem);
        let body = match &from.response.body {
            AggregateBody::Group => Body::Group,
            AggregateBody::Deep => Body::Deep,
            AggregateBody::Append => Body::Append,
            AggregateBody::Template(json) => {
                let template = BodyTemplate::compile(json, &scope);
                let template =
                    template.map_err(|error| response(("body".into(), error.problem)))?;
                template.each_template(&mut |one| uses.note(one));
                Body::Template(template)
            }
        };
        let mut headers = Vec::new();
        for (name, value) in &from.response.headers {
            let template = template(value, &scope, &mut uses)
                .map_err(|problem| response((format!("headers.{name}"), problem)))?;
            headers.push((name.as_str().into(), template));
        }
        let join = from.response.join.iter().enumerate();
        let join = join.map(|(at, join)| {
            let path = |field: &str, text| {
                let path = Dotted::parse(text);
                path.map_err(|problem| response((format!("join[{at}].{field}"), problem)))
            };
            Ok(Join {
                list: path("list", &join.list)?,
                key: path("key", &join.key)?,
                call: join.call as usize,
                from: path("from", &join.from)?,
                by: path("by", &join.by)?,
                into: path("into", &join.into)?,
                many: join.many,
            })
        });
        let projection = Projection::build(&from.response.projection);
        Ok(Aggregate {
            join: join.collect::<Result<_, Problem>>()?,
            body,
            status: from.response.status,
            projection: projection.map_err(|(field, problem)| response((field.into(), problem)))?,
            headers: headers.into(),
            deadline_ms: from.deadline_ms,
            concurrency: usize::from(from.concurrency),
            max_bytes: from.max_bytes as usize,
            errors: from.errors,
            server_timing: from.server_timing,
            stream: from.stream,
            reads_body: uses.body,
            vary: uses.vary(),
            private: uses.private,
            asks: uses.asks.into(),
            calls: calls.into(),
        })
    }

    /// Whether the answer of that call is needed after the others have been put together.
    pub fn joins(&self, call: usize) -> bool {
        self.join.iter().any(|join| join.call == call)
    }
}

/// What all templates of an aggregate ask for.
#[derive(Default)]
struct Uses {
    body: bool,
    private: bool,
    fields: Vec<String>,
    asks: Vec<Reference>,
}

impl Uses {
    fn note(&mut self, template: &Template) {
        for what in template.references() {
            match what {
                Reference::Body(_) => self.body = true,
                Reference::Header(name) => self.field(&name.text),
                Reference::Cookie(_) => self.field("cookie"),
                Reference::Claim(_) | Reference::Consumer(_) | Reference::ClientAddress => {
                    self.private = true;
                }
                _ => {}
            }
            self.ask(what);
        }
    }

    fn ask(&mut self, what: &Reference) {
        let own = matches!(
            what,
            Reference::Body(_) | Reference::Call { .. } | Reference::Item(_) | Reference::Index
        );
        if !own && !self.asks.contains(what) {
            self.asks.push(what.clone());
        }
    }

    fn field(&mut self, name: &str) {
        // RFC 9111 §3.5: what depends on that is for its bearer only.
        self.private |= name == "authorization";
        if !self.fields.iter().any(|own| own == name) {
            self.fields.push(name.into());
        }
    }

    fn vary(&mut self) -> Box<str> {
        self.fields.sort_unstable();
        self.fields.join(", ").into()
    }
}

fn template(text: &str, scope: &Scope, uses: &mut Uses) -> Result<Template, String> {
    let template = Template::compile(text, scope).map_err(|error| error.to_string())?;
    uses.note(&template);
    Ok(template)
}

struct Builder<'b> {
    scope: &'b Scope,
    uses: &'b mut Uses,
    upstreams: usize,
    protos: &'b [Arc<Proto>],
}

impl Builder<'_> {
    fn call(mut self, from: &snapshot::AggregateCall) -> Result<Call, Problem> {
        let mut needs = Vec::new();
        // The item is there once the list is known.
        let (list_scope, scope) = (self.scope, self.scope.clone());
        let scope = if from.repeat.is_some() { scope.with_item() } else { scope };
        let when = from.when.as_ref().map(|text| self.text(text, list_scope, "when", &mut needs));
        let when = when.transpose()?;
        let repeat = match &from.repeat {
            Some(repeat) => {
                let name = if repeat.batch.is_some() { "batch" } else { "foreach" };
                let place = |field: &str| format!("{name}.{field}");
                let list = self.text(&repeat.list, list_scope, &place("in"), &mut needs)?;
                let batch = repeat.batch.as_ref().map(|batch| {
                    path(&place("by"), &batch.by).map(|by| Batch { size: batch.size as usize, by })
                });
                Some(Repeat {
                    list,
                    key: path(&place("key"), &repeat.key)?,
                    max_items: repeat.max_items as usize,
                    concurrency: usize::from(repeat.concurrency),
                    batch: batch.transpose()?,
                })
            }
            None => None,
        };
        let source = match &from.source {
            CallSource::Static(json) => {
                Source::Static(self.json(json, &scope, "static", &mut needs)?)
            }
            CallSource::Http(http) => {
                Source::Http(Box::new(self.http(from, http, &scope, &mut needs)?))
            }
        };
        let mode = match &from.mode {
            CallMode::Required => Mode::Required,
            CallMode::Optional => Mode::Optional,
            CallMode::Default(json) => match Json::parse(json.as_bytes()) {
                Ok(value) => Mode::Default(value.into_owned()),
                Err(error) => return Err(("mode.default".into(), error.to_string())),
            },
        };
        let projection = Projection::build(&from.projection);
        Ok(Call {
            name: from.name.as_str().into(),
            source,
            after: from.after.iter().map(|at| *at as usize).collect(),
            needs: needs.into(),
            when,
            mode,
            repeat,
            unwrap: path("unwrap", &from.unwrap)?,
            projection: projection.map_err(|(field, problem)| (field.into(), problem))?,
            hidden: from.hidden,
            key: match from.group.as_str() {
                "" => from.name.as_str().into(),
                group => group.into(),
            },
        })
    }

    fn http(
        &mut self,
        call: &snapshot::AggregateCall,
        from: &snapshot::HttpCall,
        scope: &Scope,
        needs: &mut Vec<usize>,
    ) -> Result<HttpCall, Problem> {
        if from.upstream as usize >= self.upstreams {
            let problem =
                format!("upstream {} of {} does not exist", from.upstream, self.upstreams);
            return Err(("upstream".into(), problem));
        }
        let grpc = from.grpc.as_ref().map(|grpc| {
            let proto = self.protos.get(grpc.proto as usize).cloned();
            let proto = proto.ok_or_else(|| {
                ("grpc.proto".to_owned(), "its descriptors do not exist".to_owned())
            })?;
            Unary::find(proto, &grpc.method).map_err(|problem| ("grpc.method".to_owned(), problem))
        });
        let target = self.text(&from.path, scope, "path", needs)?;
        let empty_segments = empty_segments(&from.path);
        let mut query = Vec::new();
        for (name, value) in &from.query {
            let template = self.text(value, scope, &format!("query.{name}"), needs)?;
            let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
            query.push((name.into_bytes().into(), template));
        }
        let mut headers = Vec::new();
        for (name, value) in &from.headers {
            let template = self.text(value, scope, &format!("headers.{name}"), needs)?;
            headers.push((name.as_str().into(), template));
        }
        let body = from.body.as_ref().map(|json| self.json(json, scope, "body", needs));
        let header = |name: &String| Reference::Header(FieldName::new(name));
        let cookie = |name: &String| Reference::Cookie(name.as_str().into());
        for name in &from.forward_headers {
            self.uses.field(name);
            self.uses.ask(&header(name));
        }
        for name in &from.forward_cookies {
            self.uses.ask(&cookie(name));
        }
        if !from.forward_cookies.is_empty() {
            self.uses.field("cookie");
        }
        let named = |list: &[String], what: &dyn Fn(&String) -> Reference| {
            list.iter().map(|name| (name.as_str().into(), what(name))).collect()
        };
        Ok(HttpCall {
            upstream: from.upstream,
            route: Route::of_call(
                &call.name,
                Timeouts { connect_ms: 0, first_byte_ms: 0, idle_ms: 0, try_ms: 0, total_ms: 0 },
                from.retry.clone(),
            ),
            method: from.method.as_str().into(),
            path: target,
            empty_segments,
            query: query.into(),
            headers: headers.into(),
            body: body.transpose()?,
            forward_headers: named(&from.forward_headers, &header),
            forward_query: from.forward_query.iter().map(|name| name.as_str().into()).collect(),
            forward_cookies: named(&from.forward_cookies, &cookie),
            timeout_ms: from.timeout_ms,
            success: from.success.clone().into(),
            pass: from.pass.clone().into(),
            max_bytes: from.max_bytes as usize,
            grpc: grpc.transpose()?,
        })
    }

    fn text(
        &mut self,
        text: &str,
        scope: &Scope,
        field: &str,
        needs: &mut Vec<usize>,
    ) -> Result<Template, Problem> {
        let template =
            template(text, scope, self.uses).map_err(|problem| (field.to_owned(), problem))?;
        need(&template, needs);
        Ok(template)
    }

    fn json(
        &mut self,
        json: &str,
        scope: &Scope,
        field: &str,
        needs: &mut Vec<usize>,
    ) -> Result<BodyTemplate, Problem> {
        let template = BodyTemplate::compile(json, scope);
        let template = template.map_err(|error| (field.to_owned(), error.to_string()))?;
        template.each_template(&mut |one| {
            self.uses.note(one);
            need(one, needs);
        });
        Ok(template)
    }
}

fn need(template: &Template, needs: &mut Vec<usize>) {
    for what in template.references() {
        if let Reference::Call { index, .. } = what
            && !needs.contains(index)
        {
            needs.push(*index);
        }
    }
}

fn path(field: &str, text: &str) -> Result<Dotted, Problem> {
    Dotted::parse(text).map_err(|problem| (field.to_owned(), problem))
}

/// How many segments of a path have nothing in them; a placeholder counts as something.
pub fn empty_segments(path: &str) -> usize {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find("${") {
        plain.push_str(rest.get(..at).unwrap_or_default());
        plain.push('x');
        let tail = rest.get(at..).unwrap_or_default();
        rest = tail.find('}').and_then(|end| tail.get(end + 1..)).unwrap_or_default();
    }
    plain.push_str(rest);
    plain.split('/').filter(|segment| segment.is_empty()).count()
}

/// # Errors
/// Calls that wait for each other.
fn acyclic(calls: &[Call]) -> Result<(), Problem> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    fn visit(
        at: usize,
        calls: &[Call],
        marks: &mut [Mark],
        way: &mut Vec<usize>,
    ) -> Result<(), Problem> {
        match marks.get(at).copied() {
            None | Some(Mark::Done) => return Ok(()),
            Some(Mark::Open) => {
                let start = way.iter().position(|one| *one == at).unwrap_or(0);
                let ring = way.iter().skip(start).chain([&at]);
                let ring: Vec<&str> = ring.filter_map(|at| Some(&*calls.get(*at)?.name)).collect();
                let problem = format!(
                    "the calls wait for each other: {}; one of them has to do without",
                    ring.join(" needs ")
                );
                return Err((format!("calls[{at}]"), problem));
            }
            Some(Mark::New) => {}
        }
        let Some(call) = calls.get(at) else { return Ok(()) };
        if let Some(mark) = marks.get_mut(at) {
            *mark = Mark::Open;
        }
        way.push(at);
        for need in call.needs.iter().chain(&call.after) {
            visit(*need, calls, marks, way)?;
        }
        way.pop();
        if let Some(mark) = marks.get_mut(at) {
            *mark = Mark::Done;
        }
        Ok(())
    }
    let mut marks = vec![Mark::New; calls.len()];
    for at in 0..calls.len() {
        visit(at, calls, &mut marks, &mut Vec::new())?;
    }
    Ok(())
}
