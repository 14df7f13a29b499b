//! What is at hand where a template stands.

use super::reference::Root;

/// What a template may ask for.
#[derive(Clone, Debug)]
pub struct Scope {
    roots: Vec<Root>,
    /// Names of the path's parts.
    pub(super) captures: Vec<String>,
    /// Names of calls.
    pub(super) calls: Vec<String>,
}

impl Scope {
    /// A request without its body. `captures`: names of the parts of its path; the place in this list is
    /// [`super::Capture::index`].
    pub fn request(captures: impl IntoIterator<Item = String>) -> Scope {
        use Root::*;
        Scope {
            roots: vec![Path, Query, Header, Cookie, Claim, Consumer, Client, Request, Route, Time],
            captures: captures.into_iter().collect(),
            calls: Vec::new(),
        }
    }

    /// With these parts of the path instead.
    pub fn capturing(self, captures: Vec<String>) -> Scope {
        Scope { captures, ..self }
    }

    /// Also what answered it: `response.`.
    pub fn with_response(self) -> Scope {
        self.with(Root::Response)
    }

    /// Also a JSON body: `body.`.
    pub fn with_body(self) -> Scope {
        self.with(Root::Body)
    }

    /// Also answers of calls with these names: `call.NAME.`. The place in this list is the index in
    /// [`super::Reference::Call`].
    pub fn with_calls(self, names: impl IntoIterator<Item = String>) -> Scope {
        Scope { calls: names.into_iter().collect(), ..self.with(Root::Call) }
    }

    /// Also an item of a list: `item`, `index`.
    pub fn with_item(self) -> Scope {
        self.with(Root::Item).with(Root::Index)
    }

    /// Without that root.
    pub fn without(mut self, root: Root) -> Scope {
        self.roots.retain(|one| *one != root);
        self
    }

    fn with(mut self, root: Root) -> Scope {
        if !self.has(root) {
            self.roots.push(root);
        }
        self
    }

    pub fn has(&self, root: Root) -> bool {
        self.roots.contains(&root)
    }

    /// The roots, for people.
    pub(super) fn roots(&self) -> String {
        list(self.roots.iter().map(|root| root.name()))
    }
}

/// "a, b or c".
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.split_last() {
        None => "nothing".into(),
        Some((only, [])) => (*only).into(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}
