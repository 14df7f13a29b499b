//! Projections: which members of a document go on. Paths are dotted (`user.address.city`) and go through
//! arrays: `items.price` is the price of every item. `*` is any member; a dot in a name is written `\.`.

use super::json::Json;
use crate::limits;

/// Members by name, and what is said of what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// A path ends here.
    end: bool,
    any: Option<Box<Tree>>,
    names: Vec<(Box<str>, Tree)>,
}

impl Tree {
    /// # Errors
    /// What is wrong with one of the paths, for people.
    pub fn parse<'p>(paths: impl IntoIterator<Item = &'p str>) -> Result<Tree, String> {
        let mut tree = Tree::default();
        for path in paths {
            let segments = split(path)?;
            let mut node = &mut tree;
            for segment in segments {
                node = match segment.as_str() {
                    "*" => &mut **node.any.get_or_insert_default(),
                    name => {
                        let at = node.names.iter().position(|(own, _)| **own == *name);
                        let at = at.unwrap_or_else(|| {
                            node.names.push((name.into(), Tree::default()));
                            node.names.len() - 1
                        });
                        &mut node.names[at].1
                    }
                };
            }
            node.end = true;
        }
        Ok(tree)
    }

    /// Calls `work` with every member that a path names, those inside of it first.
    pub fn each_named<'a>(&self, value: &mut Json<'a>, work: &mut dyn FnMut(&mut Json<'a>)) {
        named(value, &[self], work);
    }

    /// What is said of a member: by its own name and by `*`.
    fn of(&self, name: &str) -> [Option<&Tree>; 2] {
        let own = self.names.iter().find(|(own, _)| **own == *name).map(|(_, tree)| tree);
        [own, self.any.as_deref()]
    }
}

fn split(path: &str) -> Result<Vec<String>, String> {
    let mut segments = vec![String::new()];
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '.' => segments.push(String::new()),
            '\\' => match chars.next() {
                Some(c @ ('.' | '\\')) => segments.last_mut().unwrap_or(&mut String::new()).push(c),
                _ => return Err("`\\` is followed by the dot or `\\` that it stands for".into()),
            },
            c => segments.last_mut().unwrap_or(&mut String::new()).push(c),
        }
    }
    if segments.iter().any(String::is_empty) {
        return Err("a path is names with dots between them, such as user.name".into());
    }
    match segments.len() <= limits::POINTER_SEGMENTS {
        true => Ok(segments),
        false => Err(format!("at most {} names are allowed", limits::POINTER_SEGMENTS)),
    }
}

fn named<'a>(value: &mut Json<'a>, trees: &[&Tree], work: &mut dyn FnMut(&mut Json<'a>)) {
    match value {
        Json::Array(items) => items.iter_mut().for_each(|item| named(item, trees, work)),
        Json::Object(members) => {
            for (name, value) in members {
                let name = name.decoded();
                let inner: Vec<_> =
                    trees.iter().flat_map(|tree| tree.of(&name)).flatten().collect();
                if !inner.is_empty() {
                    named(value, &inner, work);
                }
                if inner.iter().any(|tree| tree.end) {
                    work(value);
                }
            }
        }
        _ => {}
    }
}

/// Keeps what the paths name and nothing else. What is no object where a path goes on is dropped; a
/// document of which nothing is left is null.
pub fn allow(value: &mut Json<'_>, tree: &Tree) {
    if !keep(value, &[tree]) {
        *value = Json::Null;
    }
}

/// Whether anything of it may stay.
fn keep(value: &mut Json<'_>, trees: &[&Tree]) -> bool {
    if trees.iter().any(|tree| tree.end) {
        return true;
    }
    match value {
        Json::Array(items) => {
            items.retain_mut(|item| keep(item, trees));
            true
        }
        Json::Object(members) => {
            members.retain_mut(|(name, value)| {
                let name = name.decoded();
                let inner = trees.iter().flat_map(|tree| tree.of(&name)).flatten();
                let inner: Vec<_> = inner.collect();
                !inner.is_empty() && keep(value, &inner)
            });
            true
        }
        _ => false,
    }
}

/// Removes what the paths name.
pub fn deny(value: &mut Json<'_>, tree: &Tree) {
    remove(value, &[tree]);
}

fn remove(value: &mut Json<'_>, trees: &[&Tree]) {
    match value {
        Json::Array(items) => items.iter_mut().for_each(|item| remove(item, trees)),
        Json::Object(members) => members.retain_mut(|(name, value)| {
            let name = name.decoded();
            let inner: Vec<_> = trees.iter().flat_map(|tree| tree.of(&name)).flatten().collect();
            if inner.iter().any(|tree| tree.end) {
                return false;
            }
            if !inner.is_empty() {
                remove(value, &inner);
            }
            true
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn projected(paths: &[&str], how: fn(&mut Json<'_>, &Tree), text: &str) -> String {
        let tree = Tree::parse(paths.iter().copied()).unwrap();
        let mut value = Json::parse(text.as_bytes()).unwrap();
        how(&mut value, &tree);
        String::from_utf8(value.to_vec()).unwrap()
    }

    #[test]
    fn only_what_is_allowed_stays() {
        let text = r#"{"id":1,"user":{"name":"a","ssn":2},"items":[{"p":1.10,"c":2},3,[{"p":4}]],"a.b":5}"#;
        let allowed = |paths: &[&str]| projected(paths, allow, text);
        assert_eq!(allowed(&["id", "items.p"]), r#"{"id":1,"items":[{"p":1.10},[{"p":4}]]}"#);
        assert_eq!(allowed(&["user"]), r#"{"user":{"name":"a","ssn":2}}"#);
        assert_eq!(allowed(&["user.name", r"a\.b"]), r#"{"user":{"name":"a"},"a.b":5}"#);
        assert_eq!(allowed(&["*.name"]), r#"{"user":{"name":"a"},"items":[{},[{}]]}"#);
        assert_eq!(allowed(&["id.more"]), "{}");
        assert_eq!(projected(&["id"], allow, r#"[{"id":1,"x":2},"secret"]"#), r#"[{"id":1}]"#);
        assert_eq!(projected(&["id"], allow, "7"), "null");
    }

    #[test]
    fn what_is_denied_goes_wherever_it_hides() {
        let denied = |paths: &[&str], text: &str| projected(paths, deny, text);
        let text = r#"{"user":{"name":"a","password":1},"users":{"x":{"password":2}},"l":[[{"password":3}]]}"#;
        assert_eq!(
            denied(&["*.password", "users.*.password"], text),
            r#"{"user":{"name":"a"},"users":{"x":{}},"l":[[{}]]}"#
        );
        // A name is what it means, however it is written, and as often as it is there.
        let text = r#"{"pass\u0077ord":1,"password":2,"p":3}"#;
        assert_eq!(denied(&["password"], text), r#"{"p":3}"#);
        assert_eq!(denied(&["p"], r#"[{"p":1},{"q":[{"p":2}]}]"#), r#"[{},{"q":[{"p":2}]}]"#);
    }

    #[test]
    fn paths_that_are_none_are_refused() {
        for path in ["", ".", "a.", ".a", "a..b", "a\\x", "a\\"] {
            assert!(Tree::parse([path]).is_err(), "{path}");
        }
        let long = vec!["a"; limits::POINTER_SEGMENTS + 1].join(".");
        assert!(Tree::parse([long.as_str()]).is_err());
    }
}
