//! JSON with templates in its texts.

use serde_json::{Map, Value};

use super::{Missing, Scope, Template, TemplateError, Values};

/// A JSON value whose strings are templates. A string that is exactly one placeholder becomes what that
/// stands for, with its type; names of members are literal.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonTemplate(Node);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    /// Nothing in it is to be filled in.
    Fixed(Value),
    Text(Template),
    List(Box<[Node]>),
    Object(Box<[(String, Node)]>),
}

impl JsonTemplate {
    /// # Errors
    /// The first string that is no template; the problem names its place in `value` as a JSON pointer
    /// (RFC 6901).
    pub fn compile(value: &Value, scope: &Scope) -> Result<JsonTemplate, TemplateError> {
        node(value, scope, &mut String::new()).map(JsonTemplate)
    }

    /// # Errors
    /// A placeholder has no value.
    pub fn render(&self, from: &dyn Values) -> Result<Value, Missing> {
        render(&self.0, from)
    }
}

fn node(value: &Value, scope: &Scope, at: &mut String) -> Result<Node, TemplateError> {
    let length = at.len();
    Ok(match value {
        Value::String(text) => {
            let template = Template::compile(text, scope).map_err(|error| TemplateError {
                problem: match at.is_empty() {
                    true => error.problem,
                    false => format!("{at}: {}", error.problem),
                },
                ..error
            })?;
            match template.literal() {
                Some(text) => Node::Fixed(text.into()),
                None => Node::Text(template),
            }
        }
        Value::Array(items) => {
            let mut nodes = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                at.push_str(&format!("/{index}"));
                nodes.push(node(item, scope, at)?);
                at.truncate(length);
            }
            match nodes.iter().all(|node| matches!(node, Node::Fixed(_))) {
                true => Node::Fixed(nodes.into_iter().filter_map(fixed).collect()),
                false => Node::List(nodes.into()),
            }
        }
        Value::Object(members) => {
            let mut nodes = Vec::with_capacity(members.len());
            for (name, member) in members {
                at.push('/');
                at.push_str(&name.replace('~', "~0").replace('/', "~1"));
                nodes.push((name.clone(), node(member, scope, at)?));
                at.truncate(length);
            }
            match nodes.iter().all(|(_, node)| matches!(node, Node::Fixed(_))) {
                true => Node::Fixed(Value::Object(
                    nodes
                        .into_iter()
                        .filter_map(|(name, node)| Some((name, fixed(node)?)))
                        .collect(),
                )),
                false => Node::Object(nodes.into()),
            }
        }
        other => Node::Fixed(other.clone()),
    })
}

fn fixed(node: Node) -> Option<Value> {
    match node {
        Node::Fixed(value) => Some(value),
        _ => None,
    }
}

fn render(node: &Node, from: &dyn Values) -> Result<Value, Missing> {
    Ok(match node {
        Node::Fixed(value) => value.clone(),
        Node::Text(template) => template.render(from)?,
        Node::List(items) => {
            Value::Array(items.iter().map(|item| render(item, from)).collect::<Result<_, _>>()?)
        }
        Node::Object(members) => {
            let mut object = Map::new();
            for (name, member) in members {
                object.insert(name.clone(), render(member, from)?);
            }
            Value::Object(object)
        }
    })
}
