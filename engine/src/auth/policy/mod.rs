//! Policies: expressions in CEL (Common Expression Language) over the request, the consumer and its
//! claims, such as `request.method == "GET" || "admin" in consumer.groups`.
//!
//! They are compiled with the plan, where everything that can be known to be wrong is refused: names that
//! there are not, types that do not fit, patterns and networks that are none (`check.rs`). When a request
//! comes, only what its policy mentions is made ready, in place (`facts.rs`).
//!
//! **Bounds.** A policy is short and nests little; regular expressions are known when it is compiled and
//! take linear time; a loop cannot stand in another, and lists have a greatest length. So the most
//! that it can cost is its size times the greatest list.
//!
//! **Errors.** What goes wrong with a request, such as a claim that is not there, refuses it. Whoever
//! writes a policy asks first: `has(claims.tenant) && claims.tenant == "a"`.

mod check;
mod facts;
mod functions;
mod values;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use cel::common::ast::SourceInfo;
use cel::common::types::CelBool;
use cel::{Context, Env, IdedExpr, Value};

use self::facts::Facts;
use self::values::{Network, Pattern};
use super::{Call, Identity};
use crate::limits;

/// Begin the names that stand for constants in an expression; no name in a text begins so.
const PATTERNS: &str = "@pattern";
const NETWORKS: &str = "@network";

/// A compiled policy.
pub struct Policy {
    text: Box<str>,
    expression: IdedExpr,
    language: Arc<Env>,
    /// Constants of the text, which the expression calls by their places.
    patterns: Box<[Pattern]>,
    networks: Box<[Network]>,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Policy").field(&self.text).finish()
    }
}

impl PartialEq for Policy {
    /// By their text, which says all.
    fn eq(&self, other: &Policy) -> bool {
        self.text == other.text
    }
}

/// A request cannot be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unjudged;

impl Policy {
    /// Whether the caller may do this.
    ///
    /// # Errors
    /// Something that the policy asks for is not there, or is of another type.
    pub fn allows(&self, call: Call<'_>, identity: Option<&Identity>) -> Result<bool, Unjudged> {
        self.holds(&Facts::new(self, call, identity))
    }

    fn holds(&self, facts: &Facts<'_>) -> Result<bool, Unjudged> {
        let mut context = Context::with_env(self.language.clone());
        context.set_variable_resolver(facts);
        let value = Value::resolve_val(&self.expression, &context).map_err(|_| Unjudged)?;
        value.downcast_ref::<CelBool>().map(|held| *held.inner()).ok_or(Unjudged)
    }
}

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Node of the expression; 0: the whole.
    node: u64,
    problem: String,
}

/// The language of policies, and those that plans have.
#[derive(Default)]
pub struct Memory {
    language: OnceLock<Arc<Env>>,
    /// By their text. Thousands of routes may have the same, and the next plan has most of them again.
    policies: Mutex<HashMap<Box<str>, Weak<Policy>>>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("policy::Memory").finish_non_exhaustive()
    }
}

impl Memory {
    /// Forgets policies that no plan has any more.
    pub fn sweep(&self) {
        let mut policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        policies.retain(|_, policy| policy.strong_count() > 0);
    }

    /// # Errors
    /// Where in the text what is wrong.
    pub fn policy(&self, text: &str) -> Result<Arc<Policy>, String> {
        let mut policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(policy) = policies.get(text).and_then(Weak::upgrade) {
            return Ok(policy);
        }
        let language = self.language.get_or_init(|| Arc::new(language()));
        let policy = Arc::new(compile(language, text)?);
        policies.insert(text.into(), Arc::downgrade(&policy));
        Ok(policy)
    }
}

/// CEL's standard library, and what is our own.
fn language() -> Env {
    let mut env = Env::stdlib().with_optional_support(false);
    values::declare(&mut env);
    env
}

fn compile(language: &Arc<Env>, text: &str) -> Result<Policy, String> {
    if text.len() > limits::POLICY_TEXT {
        return Err(format!(
            "is {} bytes long; at most {} are taken",
            text.len(),
            limits::POLICY_TEXT
        ));
    }
    // The parser nests as deep as the text, and what it made is dropped in the same way.
    std::thread::scope(|scope| {
        let compiler = std::thread::Builder::new().stack_size(limits::POLICY_STACK);
        let compiled = compiler.spawn_scoped(scope, || read(language, text));
        let compiled = compiled.map_err(|error| format!("no thread to compile it: {error}"))?;
        compiled.join().unwrap_or_else(|_| Err("cannot be read".into()))
    })
}

fn read(language: &Arc<Env>, text: &str) -> Result<Policy, String> {
    let parsed = language.parser().parse_with_source_info(text);
    let (mut expression, source) = parsed.map_err(|errors| match errors.errors.first() {
        Some(error) => format!("{}:{}: {}", error.pos.0, error.pos.1, error.msg),
        None => "cannot be read".into(),
    })?;
    let found = check::check(&mut expression)
        .map_err(|fault| format!("{}{}", position(&source, text, fault.node), fault.problem))?;
    Ok(Policy {
        text: text.into(),
        expression,
        language: language.clone(),
        patterns: found.patterns.into(),
        networks: found.networks.into(),
    })
}

/// Line and column of a node, as `3:14: `.
fn position(source: &SourceInfo, text: &str, node: u64) -> String {
    let Some((start, _)) = source.offset_for(node) else { return String::new() };
    let before = text.as_bytes().get(..start as usize).unwrap_or(text.as_bytes());
    let before = String::from_utf8_lossy(before);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{line}:{column}: ")
}

#[cfg(test)]
mod tests;
