//! What can be known to be wrong with a policy before there is a request, and what it costs.
//!
//! CEL checks types as far as they are known; what a claim is shows only when there is one, so claims fit
//! everything (`dyn`).

use std::fmt;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue};

use super::values::{Network, Pattern};
use super::{Fault, NETWORKS, PATTERNS, functions};
use crate::limits;

/// A type, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Time,
    Duration,
    Null,
    List(Box<Kind>),
    /// By texts.
    Map(Box<Kind>),
    Dyn,
}

impl fmt::Display for Kind {
    /// As CEL calls it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Double => "double",
            Kind::Text => "string",
            Kind::Bytes => "bytes",
            Kind::Time => "timestamp",
            Kind::Duration => "duration",
            Kind::Null => "null",
            Kind::List(_) => "list",
            Kind::Map(_) => "map",
            Kind::Dyn => "dyn",
        })
    }
}

impl Kind {
    fn is_number(&self) -> bool {
        matches!(self, Kind::Int | Kind::Uint | Kind::Double)
    }

    /// Whether values of both may be equal.
    pub fn fits(&self, other: &Kind) -> bool {
        match (self, other) {
            (Kind::Dyn, _) | (_, Kind::Dyn) => true,
            (Kind::List(one), Kind::List(two)) | (Kind::Map(one), Kind::Map(two)) => one.fits(two),
            // `x == null` asks whether there is something.
            (Kind::Null, _) | (_, Kind::Null) => true,
            (one, two) => one == two || one.is_number() && two.is_number(),
        }
    }

    fn with(self, other: Kind) -> Kind {
        if self == other { self } else { Kind::Dyn }
    }
}

/// What a policy has beside its expression.
#[derive(Debug, Default)]
pub struct Constants {
    pub patterns: Vec<Pattern>,
    pub networks: Vec<Network>,
}

/// Checks a policy, and takes the constants out of it that are read ahead.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(expression: &mut IdedExpr) -> Result<Constants, Fault> {
    let mut check = Check::default();
    match check.visit(expression)? {
        Kind::Bool | Kind::Dyn => Ok(check.constants),
        kind => Err(Fault {
            node: expression.id,
            problem: format!("is a {kind}; a policy is true or false, such as `a == b`"),
        }),
    }
}

#[derive(Default)]
struct Check {
    constants: Constants,
    /// Variables of the loops around the place.
    variables: Vec<(String, Kind)>,
    nodes: usize,
    depth: usize,
    loops: usize,
}

type Checked = Result<Kind, Fault>;

fn fault<T>(node: u64, problem: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { node, problem: problem.into() })
}

const REQUEST: &str = "method, host, path, query, headers, ip and time";
const CONSUMER: &str = "id, groups, scopes, anonymous and known";

/// The type of a field of a variable of ours.
fn field_of(variable: &str, field: &str) -> Option<Kind> {
    let texts = || Box::new(Kind::Text);
    Some(match (variable, field) {
        ("request", "method" | "host" | "path" | "ip") | ("consumer", "id") => Kind::Text,
        ("request", "query" | "headers") => Kind::Map(texts()),
        ("request", "time") => Kind::Time,
        ("consumer", "groups" | "scopes") => Kind::List(texts()),
        ("consumer", "anonymous" | "known") => Kind::Bool,
        _ => return None,
    })
}

impl Check {
    fn visit(&mut self, node: &mut IdedExpr) -> Checked {
        let id = node.id;
        self.nodes += 1;
        self.depth += 1;
        if self.nodes > limits::POLICY_NODES {
            return fault(id, format!("is too long: more than {} parts", limits::POLICY_NODES));
        }
        if self.depth > limits::POLICY_DEPTH {
            return fault(id, format!("nests deeper than {} levels", limits::POLICY_DEPTH));
        }
        let kind = match &mut node.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Kind::Bool,
                LiteralValue::Bytes(_) => Kind::Bytes,
                LiteralValue::Double(_) => Kind::Double,
                LiteralValue::Int(_) => Kind::Int,
                LiteralValue::Null => Kind::Null,
                LiteralValue::String(_) => Kind::Text,
                LiteralValue::UInt(_) => Kind::Uint,
            },
            Expr::Ident(name) => self.variable(id, name)?,
            Expr::Select(select) => {
                if let Expr::Ident(name) = &select.operand.expr
                    && self.known(name).is_none()
                    && matches!(name.as_str(), "request" | "consumer")
                {
                    let kind = field(id, name, &select.field, select.test)?;
                    // One name: the interpreter need not put it together for each request.
                    let whole = format!("{name}.{}", select.field);
                    node.expr = Expr::Ident(whole);
                    kind
                } else {
                    let of = self.visit(&mut select.operand)?;
                    let kind = match of {
                        Kind::Map(value) => *value,
                        Kind::Dyn => Kind::Dyn,
                        of => return fault(id, format!("a {of} has no field `{}`", select.field)),
                    };
                    if select.test { Kind::Bool } else { kind }
                }
            }
            Expr::List(list) => {
                let mut kind = None;
                for element in &mut list.elements {
                    let own = self.visit(element)?;
                    kind = Some(kind.map_or(own.clone(), |kind: Kind| kind.with(own)));
                }
                Kind::List(Box::new(kind.unwrap_or(Kind::Dyn)))
            }
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    let EntryExpr::MapEntry(entry) = &mut entry.expr else {
                        return fault(id, "cannot be read");
                    };
                    self.visit(&mut entry.key)?;
                    self.visit(&mut entry.value)?;
                }
                Kind::Map(Box::new(Kind::Dyn))
            }
            Expr::Comprehension(over) => self.comprehension(id, over)?,
            Expr::Call(call) => self.call(id, call)?,
            Expr::Struct(of) => return fault(id, format!("there is no type `{}`", of.type_name)),
            Expr::Unspecified => return fault(id, "is empty"),
        };
        self.depth -= 1;
        Ok(kind)
    }

    /// A variable of a loop.
    fn known(&self, name: &str) -> Option<&Kind> {
        self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, kind)| kind)
    }

    fn variable(&self, id: u64, name: &str) -> Checked {
        if let Some(kind) = self.known(name) {
            return Ok(kind.clone());
        }
        match name {
            "claims" => Ok(Kind::Map(Box::new(Kind::Dyn))),
            "request" => fault(id, format!("`request` is asked for one of {REQUEST}")),
            "consumer" => fault(id, format!("`consumer` is asked for one of {CONSUMER}")),
            _ => fault(
                id,
                format!("there is no variable `{name}`; there are request, consumer and claims"),
            ),
        }
    }

    /// `all`, `exists`, `exists_one`, `filter`, `map`: what they are made of.
    fn comprehension(&mut self, id: u64, over: &mut ComprehensionExpr) -> Checked {
        let element = match self.visit(&mut over.iter_range)? {
            Kind::List(element) => *element,
            Kind::Dyn => Kind::Dyn,
            kind => return fault(id, format!("goes over a {kind}, where a list is wanted")),
        };
        if over.iter_var2.is_some() {
            return fault(id, "goes over pairs, where a list is wanted");
        }
        if matches!(over.iter_var.as_str(), "request" | "consumer" | "claims") {
            return fault(id, format!("`{}` is taken; call it otherwise", over.iter_var));
        }
        self.loops += 1;
        if self.loops > 1 {
            return fault(id, "stands in another loop, which would take the square of its time");
        }
        let start = self.visit(&mut over.accu_init)?;
        self.variables.push((over.accu_var.clone(), start));
        self.variables.push((over.iter_var.clone(), element));
        self.visit(&mut over.loop_cond)?;
        self.visit(&mut over.loop_step)?;
        let result = self.visit(&mut over.result)?;
        self.variables.truncate(self.variables.len().saturating_sub(2));
        self.loops -= 1;
        Ok(result)
    }

    fn call(&mut self, id: u64, call: &mut CallExpr) -> Checked {
        let name = call.func_name.clone();
        let mut kinds = Vec::with_capacity(call.args.len() + 1);
        let is_member = call.target.is_some();
        if let Some(target) = &mut call.target {
            kinds.push(self.visit(target)?);
        }
        for argument in &mut call.args {
            kinds.push(self.visit(argument)?);
        }
        if matches!(name.as_str(), "matches" | "ip_in") {
            self.read_ahead(id, call, &kinds)?;
        }
        let appends = call
            .args
            .first()
            .is_some_and(|first| matches!(&first.expr, Expr::Ident(name) if name.starts_with('@')));
        match functions::operator(&name, &kinds, appends) {
            Some(Ok(kind)) => return Ok(kind),
            Some(Err(problem)) => return fault(id, problem),
            None => {}
        }
        functions::call(&name, is_member, &kinds).or_else(|problem| fault(id, problem))
    }

    /// Reads the constant that a call is made with, and puts its place there instead.
    fn read_ahead(&mut self, id: u64, call: &mut CallExpr, kinds: &[Kind]) -> Result<(), Fault> {
        let Some(last) = call.args.last_mut().filter(|_| kinds.len() == 2) else { return Ok(()) };
        let Expr::Literal(LiteralValue::String(text)) = &last.expr else {
            return match call.func_name.as_str() {
                "matches" => fault(id, "the pattern of `matches` is written out as \"text\""),
                _ => Ok(()),
            };
        };
        let unfit = |problem| Fault { node: last.id, problem };
        let place = if call.func_name == "matches" {
            self.constants.patterns.push(text.inner().parse().map_err(unfit)?);
            format!("{PATTERNS}{}", self.constants.patterns.len() - 1)
        } else {
            self.constants.networks.push(text.inner().parse().map_err(unfit)?);
            format!("{NETWORKS}{}", self.constants.networks.len() - 1)
        };
        last.expr = Expr::Ident(place);
        Ok(())
    }
}

/// A field of `request` or `consumer`.
fn field(id: u64, of: &str, name: &str, test: bool) -> Checked {
    match field_of(of, name) {
        Some(_) if test => fault(id, format!("`{of}.{name}` is always there")),
        Some(kind) => Ok(kind),
        None => {
            let known = if of == "request" { REQUEST } else { CONSUMER };
            fault(id, format!("`{of}` has no `{name}`; it has {known}"))
        }
    }
}
