//! JSON with templates in its texts, in which numbers stay as they came.
//!
//! A member whose value is missing is left out, an item of a list is null: nothing is ever the text
//! "null".

use serde_json::Value;

use super::view::View;
use crate::payload::json::{Json, Text};
use crate::template::{Scope, Template, TemplateError};

/// A compiled one.
#[derive(Clone, Debug, PartialEq)]
pub struct BodyTemplate(Node);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    /// Nothing in it is to be filled in.
    Fixed(Json<'static>),
    Text(Box<Template>),
    List(Box<[Node]>),
    Object(Box<[(Text<'static>, Node)]>),
}

impl BodyTemplate {
    /// # Errors
    /// The first text that is no template; the problem names its place as a JSON Pointer (RFC 6901).
    pub fn compile(json: &str, scope: &Scope) -> Result<BodyTemplate, TemplateError> {
        let value = Json::parse(json.as_bytes())
            .map_err(|error| TemplateError { at: error.at, problem: error.problem.into() })?;
        node(&value, scope, &mut String::new()).map(BodyTemplate)
    }

    /// `None`: it is one template, and that has no value.
    pub fn render<'a>(&self, view: &View<'_, 'a>) -> Option<Json<'a>> {
        render(&self.0, view)
    }

    /// What it asks for.
    pub fn each_template<'t>(&'t self, work: &mut dyn FnMut(&'t Template)) {
        each(&self.0, work);
    }
}

fn node(value: &Json<'_>, scope: &Scope, at: &mut String) -> Result<Node, TemplateError> {
    let length = at.len();
    Ok(match value {
        Json::String(text) => {
            let template = Template::compile(&text.decoded(), scope).map_err(|error| {
                let place = if at.is_empty() { String::new() } else { format!("{at}: ") };
                TemplateError { problem: format!("{place}{}", error.problem), ..error }
            })?;
            match template.literal() {
                Some(text) => Node::Fixed(Json::string(text)),
                None => Node::Text(Box::new(template)),
            }
        }
        Json::Array(items) => {
            let mut nodes = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                at.push_str(&format!("/{index}"));
                nodes.push(node(item, scope, at)?);
                at.truncate(length);
            }
            match nodes.iter().all(|node| matches!(node, Node::Fixed(_))) {
                true => Node::Fixed(Json::Array(nodes.into_iter().filter_map(fixed).collect())),
                false => Node::List(nodes.into()),
            }
        }
        Json::Object(members) => {
            let mut nodes = Vec::with_capacity(members.len());
            for (name, member) in members {
                at.push('/');
                at.push_str(&name.decoded().replace('~', "~0").replace('/', "~1"));
                nodes.push((name.clone().into_owned(), node(member, scope, at)?));
                at.truncate(length);
            }
            match nodes.iter().all(|(_, node)| matches!(node, Node::Fixed(_))) {
                true => {
                    let nodes = nodes.into_iter();
                    let members = nodes.filter_map(|(name, node)| Some((name, fixed(node)?)));
                    Node::Fixed(Json::Object(members.collect()))
                }
                false => Node::Object(nodes.into()),
            }
        }
        other => Node::Fixed(other.clone().into_owned()),
    })
}

fn fixed(node: Node) -> Option<Json<'static>> {
    match node {
        Node::Fixed(value) => Some(value),
        _ => None,
    }
}

fn render<'a>(node: &Node, view: &View<'_, 'a>) -> Option<Json<'a>> {
    match node {
        Node::Fixed(value) => Some(value.clone()),
        Node::Text(template) => view.value(template),
        Node::List(items) => {
            let items = items.iter().map(|item| render(item, view).unwrap_or_default());
            Some(Json::Array(items.collect()))
        }
        Node::Object(members) => {
            let members =
                members.iter().filter_map(|(name, node)| Some((name.clone(), render(node, view)?)));
            Some(Json::Object(members.collect()))
        }
    }
}

fn each<'t>(node: &'t Node, work: &mut dyn FnMut(&'t Template)) {
    match node {
        Node::Fixed(_) => {}
        Node::Text(template) => work(template),
        Node::List(items) => items.iter().for_each(|item| each(item, work)),
        Node::Object(members) => members.iter().for_each(|(_, node)| each(node, work)),
    }
}

/// As the template language sees it. A whole number that is too large for it is a text: the digits count.
pub fn to_value(json: &Json<'_>) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(on) => Value::Bool(*on),
        Json::Number(text) => number(text),
        Json::String(text) => Value::String(text.decoded().into_owned()),
        Json::Array(items) => items.iter().map(to_value).collect(),
        Json::Object(members) => Value::Object(
            members.iter().map(|(name, value)| (name.decoded().into(), to_value(value))).collect(),
        ),
    }
}

fn number(text: &str) -> Value {
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    if let Ok(number) = text.parse::<u64>() {
        return number.into();
    }
    let whole = !text.contains(['.', 'e', 'E']);
    let double = text.parse().ok().filter(|_| !whole).and_then(serde_json::Number::from_f64);
    double.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}
