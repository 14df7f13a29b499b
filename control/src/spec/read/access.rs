//! What routes ask of callers.

use super::consumers::{names, scopes};
use super::fields::Walk;
use super::listener::cidrs;
use super::parts::{count, flag, one_of};
use super::route::unique;
use crate::spec::model::{Cors, Networks, Origins, RouteAuth, Unidentified};
use crate::spec::scalars;
use crate::spec::tree::{Node, Value};

pub(super) fn route_auth(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<RouteAuth> {
    let plain = |authenticators| RouteAuth {
        authenticators,
        all: false,
        unidentified: Unidentified::Refuse,
        scopes: Vec::new(),
        groups: Vec::new(),
        policy: None,
        hide_credentials: false,
    };
    match &node.value {
        Value::Text(_) => {
            let name = walk.parsed(node, path, "bad-name", scalars::name)?;
            return Some(plain(vec![name]));
        }
        Value::List(_) => return some_names(walk, node, path).map(plain),
        Value::Map(_) => {}
        _ => {
            walk.places.set(path, node.mark);
            let expected = "the name of an authenticator, a list of them, or a map with any or all";
            walk.wrong_type(node, path, expected);
            return None;
        }
    }
    const KNOWN: &[&str] =
        &["any", "all", "optional", "anonymous", "scopes", "groups", "policy", "hide_credentials"];
    let f = &walk.fields(node, path, KNOWN)?;
    one_of(walk, f, &["any", "all"]);
    let any = f.read(walk, "any", some_names);
    let all = f.read(walk, "all", some_names);
    let optional = flag(walk, f, "optional", false);
    let anonymous = f.read(walk, "anonymous", |walk, node, path| walk.text(node, path));
    if let (true, Some(node)) = (optional, f.node("anonymous")) {
        let message = "optional and anonymous exclude each other; keep one".into();
        walk.error("conflicting-fields", node, &f.at("anonymous"), message);
    }
    let policy = f.read(walk, "policy", |walk, node, path| {
        walk.parsed(node, path, "bad-value", |text| match text.len() {
            0 => Err("an empty policy is true for nobody; leave it out".into()),
            1..=8_192 => Ok(text.to_string()),
            more => Err(format!("the policy has {more} bytes; at most 8192")),
        })
    });
    Some(RouteAuth {
        all: all.is_some(),
        authenticators: any.or(all).unwrap_or_default(),
        unidentified: match (anonymous, optional) {
            (Some(name), _) => Unidentified::As(name),
            (None, true) => Unidentified::Pass,
            (None, false) => Unidentified::Refuse,
        },
        scopes: f.read(walk, "scopes", scopes).unwrap_or_default(),
        groups: f.read(walk, "groups", names).unwrap_or_default(),
        policy,
        hide_credentials: flag(walk, f, "hide_credentials", false),
    })
}

fn some_names(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<String>> {
    let list = names(walk, node, path)?;
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        let message = "expected at least one authenticator; to let anyone in leave `auth` out";
        walk.error("empty-list", node, path, message.into());
    }
    Some(list)
}

pub(super) fn networks(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Networks> {
    let f = &walk.fields(node, path, &["allow", "deny"])?;
    let networks = Networks {
        allow: f.read(walk, "allow", cidrs).unwrap_or_default(),
        deny: f.read(walk, "deny", cidrs).unwrap_or_default(),
    };
    if let (Some(allow), true) = (f.node("allow"), networks.allow.is_empty())
        && matches!(&allow.value, Value::List(items) if items.is_empty())
    {
        let message = "an empty list allows all networks, and looks as if it allowed none; leave it \
                       out, or name some";
        walk.error("empty-list", allow, &f.at("allow"), message.into());
    }
    Some(networks)
}

pub(super) fn cors(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Cors> {
    const KNOWN: &[&str] =
        &["origins", "methods", "headers", "expose", "credentials", "max_age_s", "private_network"];
    let f = &walk.fields(node, path, KNOWN)?;
    let expected = "\"*\", or a list like [\"https://app.example.com\"]";
    let origins = f.require(walk, "origins", expected, origins);
    let field = |walk: &mut Walk<'_>, node: &Node, path: &str| {
        unique(walk, node, path, "bad-field-name", |text| match text {
            "*" => Err("for any field leave the list out".into()),
            text => scalars::field_name(text),
        })
    };
    let methods = f.read(walk, "methods", |walk, node, path| {
        unique(walk, node, path, "bad-method", |text| match text {
            "*" => Err("for the methods of the route leave the list out".into()),
            text => scalars::method(text),
        })
    });
    Some(Cors {
        methods: methods.unwrap_or_default(),
        headers: f.read(walk, "headers", field).unwrap_or_default(),
        expose: f.read(walk, "expose", field).unwrap_or_default(),
        credentials: flag(walk, f, "credentials", false),
        max_age_s: count(walk, f, "max_age_s", 0, 86_400, Cors::default_max_age_s()),
        private_network: flag(walk, f, "private_network", false),
        origins: origins?,
    })
}

fn origins(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Origins> {
    match &node.value {
        Value::Text(text) if text == "*" => {
            walk.places.set(path, node.mark);
            Some(Origins::Any)
        }
        Value::List(items) => {
            if items.is_empty() {
                let message = "no page could call; leave `cors` out, or name an origin".into();
                walk.error("empty-list", node, path, message);
            }
            unique(walk, node, path, "bad-origin", scalars::origin).map(Origins::Listed)
        }
        _ => {
            walk.places.set(path, node.mark);
            walk.wrong_type(node, path, "\"*\", or a list like [\"https://app.example.com\"]");
            None
        }
    }
}
