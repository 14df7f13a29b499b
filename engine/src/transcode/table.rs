//! Which binding a request is for: a tree of the templates' segments.
//!
//! At each segment a literal goes before `*`, and that before `**`; of several `**` the one with more
//! literals behind it goes first. Where one way leads nowhere, the next is tried. Each node has one way
//! that leads to it, so a look-up visits no more nodes than the tree has.

use std::collections::HashMap;

use super::template::{Segment, Template};
use crate::limits;

/// Bindings by method and path. A binding is a number.
#[derive(Debug, Default)]
pub struct Table {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<[u8]>, Node>,
    one: Option<Box<Node>>,
    /// Literals behind a `**`, the most first.
    rest: Vec<(Literals, Vec<End>)>,
    ends: Vec<End>,
}

type Literals = Box<[Box<[u8]>]>;

#[derive(Debug)]
struct End {
    /// Upper case; `*`: any.
    method: Box<str>,
    verb: Box<[u8]>,
    binding: usize,
}

/// What a look-up found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Found(usize),
    /// The path has other methods, in no order.
    Methods(Vec<String>),
    Nothing,
}

/// A path in its segments.
pub struct Path<'a> {
    pub segments: Segments<'a>,
    /// Where the verb could begin: behind a `:` of the last segment.
    colon: Option<usize>,
}

type Segments<'a> = smallvec::SmallVec<[&'a [u8]; 12]>;

impl<'a> Path<'a> {
    /// `path` begins with `/`; as it came, with its escapes.
    pub fn split(path: &'a [u8]) -> Option<Path<'a>> {
        let path = path.strip_prefix(b"/")?;
        let mut segments = Segments::new();
        if !path.is_empty() {
            for segment in path.split(|&byte| byte == b'/') {
                if segments.len() > limits::TEMPLATE_SEGMENTS * 4 {
                    return None;
                }
                segments.push(segment);
            }
        }
        let colon = segments.last().and_then(|last| memchr::memrchr(b':', last));
        Some(Path { segments, colon })
    }

    fn verb(&self) -> Option<&'a [u8]> {
        self.segments.last()?.get(self.colon? + 1..)
    }

    /// The same without the verb.
    pub fn without_verb(&self) -> Path<'a> {
        let mut segments = self.segments.clone();
        if let (Some(last), Some(colon)) = (segments.last_mut(), self.colon) {
            *last = last.get(..colon).unwrap_or_default();
        }
        Path { segments, colon: None }
    }
}

impl Table {
    /// Adds a binding.
    ///
    /// # Errors
    /// The one that has the same method and the same paths already.
    pub fn add(&mut self, method: &str, template: &Template, binding: usize) -> Result<(), usize> {
        let mut node = &mut self.root;
        let mut segments = template.segments.iter();
        let ends = loop {
            match segments.next() {
                None => break &mut node.ends,
                Some(Segment::Literal(text)) => {
                    node = node.literals.entry(text.clone()).or_default()
                }
                Some(Segment::One) => node = node.one.get_or_insert_default(),
                Some(Segment::Rest) => {
                    let behind: Literals = segments
                        .filter_map(|segment| match segment {
                            Segment::Literal(text) => Some(text.clone()),
                            Segment::One | Segment::Rest => None,
                        })
                        .collect();
                    let at = match node.rest.iter().position(|(own, _)| *own == behind) {
                        Some(at) => at,
                        None => {
                            let len = behind.len();
                            let at = node.rest.partition_point(|(own, _)| own.len() >= len);
                            node.rest.insert(at, (behind, Vec::new()));
                            at
                        }
                    };
                    break &mut node.rest[at].1;
                }
            }
        };
        let same = |end: &&End| *end.method == *method && end.verb == template.verb;
        if let Some(end) = ends.iter().find(same) {
            return Err(end.binding);
        }
        ends.push(End { method: method.into(), verb: template.verb.clone(), binding });
        Ok(())
    }

    /// The binding for `method` on `path`.
    pub fn find(&self, method: &[u8], path: &Path<'_>) -> Lookup {
        let mut methods = Vec::new();
        // A verb that some template has goes before the same characters in a segment.
        if let Some(verb) = path.verb() {
            let bare = path.without_verb();
            let seek = Seek { method, verb, segments: &bare.segments };
            if let Some(binding) = seek.at(&self.root, 0, &mut methods) {
                return Lookup::Found(binding);
            }
        }
        let seek = Seek { method, verb: b"", segments: &path.segments };
        match seek.at(&self.root, 0, &mut methods) {
            Some(binding) => Lookup::Found(binding),
            None if methods.is_empty() => Lookup::Nothing,
            None => Lookup::Methods(methods),
        }
    }
}

struct Seek<'a> {
    method: &'a [u8],
    verb: &'a [u8],
    segments: &'a [&'a [u8]],
}

impl Seek<'_> {
    fn at(&self, node: &Node, depth: usize, methods: &mut Vec<String>) -> Option<usize> {
        let Some(segment) = self.segments.get(depth) else {
            let end = self.end(&node.ends, methods);
            return end.or_else(|| self.rest(node, depth, methods));
        };
        let literal = match memchr::memchr(b'%', segment) {
            None => node.literals.get(*segment),
            Some(_) => {
                let decoded = super::percent::decoded(segment, super::percent::Keep::Nothing);
                node.literals.get(&*decoded)
            }
        };
        if let Some(next) = literal
            && let Some(found) = self.at(next, depth + 1, methods)
        {
            return Some(found);
        }
        if let Some(next) = &node.one
            && !segment.is_empty()
            && let Some(found) = self.at(next, depth + 1, methods)
        {
            return Some(found);
        }
        self.rest(node, depth, methods)
    }

    fn rest(&self, node: &Node, depth: usize, methods: &mut Vec<String>) -> Option<usize> {
        let left = self.segments.get(depth..).unwrap_or_default();
        node.rest.iter().find_map(|(behind, ends)| {
            let tail = left.get(left.len().checked_sub(behind.len())?..)?;
            let keep = super::percent::Keep::Nothing;
            let decoded = |segment: &[u8]| super::percent::decoded(segment, keep).into_owned();
            let fits = tail.iter().zip(behind.iter()).all(|(a, b)| **a == **b || decoded(a) == **b);
            if fits { self.end(ends, methods) } else { None }
        })
    }

    fn end(&self, ends: &[End], methods: &mut Vec<String>) -> Option<usize> {
        let verb = ends.iter().filter(|end| *end.verb == *self.verb);
        let mut any = None;
        for end in verb {
            if end.method.as_bytes() == self.method {
                return Some(end.binding);
            }
            if &*end.method == "*" {
                any = Some(end.binding);
            } else if !methods.iter().any(|own| *own == *end.method) {
                methods.push(end.method.to_string());
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::super::percent::{self, Keep};
    use super::*;

    struct Known {
        table: Table,
        templates: Vec<Template>,
    }

    fn known(list: &[&str]) -> Known {
        let mut table = Table::default();
        let mut templates = Vec::new();
        for (at, text) in list.iter().enumerate() {
            let (method, text) = text.split_once(' ').unwrap_or(("GET", text));
            let template = Template::parse(text).unwrap();
            table.add(method, &template, at).unwrap();
            templates.push(template);
        }
        Known { table, templates }
    }

    impl Known {
        /// `n name=value ...`, `-` for nothing, `!` and the methods for others.
        fn find(&self, path: &str) -> String {
            let (method, path) = path.split_once(' ').unwrap_or(("GET", path));
            let Some(path) = Path::split(path.as_bytes()) else { return "-".into() };
            match self.table.find(method.as_bytes(), &path) {
                Lookup::Nothing => "-".into(),
                Lookup::Methods(methods) => format!("!{}", methods.join(",")),
                Lookup::Found(at) => {
                    let template = &self.templates[at];
                    let path = if template.verb.is_empty() { path } else { path.without_verb() };
                    let mut out = at.to_string();
                    for one in &template.variables {
                        let (start, end) = template.range(one, path.segments.len());
                        let raw = path.segments[start..end].join(&b'/');
                        let multi = template.is_multi(one);
                        let keep = if multi { Keep::Slash } else { Keep::Nothing };
                        let value = percent::decoded(&raw, keep);
                        let value = String::from_utf8_lossy(&value).into_owned();
                        out.push_str(&format!(" {}={value}", one.field));
                    }
                    out
                }
            }
        }

        fn all(&self, cases: &[(&str, &str)]) {
            for (path, expected) in cases {
                assert_eq!(self.find(path), *expected, "{path}");
            }
        }
    }

    // The cases of this and the next tests are those of grpc-httpjson-transcoding's
    // `path_matcher_test.cc` (Apache-2.0).
    #[test]
    fn literals_go_before_wildcards() {
        known(&["/**"]).all(&[("/", "0"), ("/a", "0"), ("/a/", "0")]);
        known(&["/a/**", "/b/*", "/c/*/d/**", "/c/*/d/e", "/c/f/d/e"]).all(&[
            ("/a/b", "0"),
            ("/a/b/c", "0"),
            ("/b/c", "1"),
            ("b/c/d", "-"),
            ("/c/u/d/v", "2"),
            ("/c/v/d/w/x", "2"),
            ("/c/x/y/d/z", "-"),
            ("/c//v/d/w/x", "-"),
            ("/c/x/d/e", "3"),
            ("/c/f/d/e", "4"),
        ]);
    }

    #[test]
    fn variables_have_their_parts_of_the_path() {
        known(&[
            "/a/{x}/c/d/e",
            "/{x=a/*}/b/{y=*}/c",
            "/a/{x=b/*}/{y=d/**}",
            "/alpha/{x=*}/beta/{y=**}/gamma",
            "/{x=*}/a",
            "/{x=**}/a/b",
            "/a/b/{x=*}",
            "/a/b/c/{x=**}",
            "/{x=*}/d/e/f/{y=**}",
        ])
        .all(&[
            ("/a/book/c/d/e", "0 x=book"),
            ("/a/hello/b/world/c", "1 x=a/hello y=world"),
            ("/a/b/zoo/d/animal/tiger", "2 x=b/zoo y=d/animal/tiger"),
            ("/alpha/dog/beta/eat/bones/gamma", "3 x=dog y=eat/bones"),
            ("/foo/a", "4 x=foo"),
            ("/foo/bar/a/b", "5 x=foo/bar"),
            ("/a/b/foo", "6 x=foo"),
            ("/a/b/c/foo/bar/baz", "7 x=foo/bar/baz"),
            ("/foo/d/e/f/bar/baz", "8 x=foo y=bar/baz"),
        ]);
        known(&["/a/{x}/c"]).all(&[("/a/p%20q%2Fr/c", "0 x=p q/r")]);
        known(&["/a/{x=p/*/q/*}/c"])
            .all(&[("/a/p/foo%20foo/q/bar%2Fbar/c", "0 x=p/foo foo/q/bar%2Fbar")]);
        known(&["/a/{x=**}/c"])
            .all(&[("/a/p/foo%20foo/q/bar%2Fbar/c", "0 x=p/foo foo/q/bar%2Fbar")]);
    }

    #[test]
    fn verbs_are_found_behind_the_last_colon() {
        known(&[
            "/a/{y=*}:verb",
            "/a/{y=d/**}:verb",
            "/{x=*}/a:verb",
            "/{x=**}/b:verb",
            "/e/{x=*}/f:verb",
            "/g/{x=**}/h:verb",
        ])
        .all(&[
            ("/a/world:verb", "0 y=world"),
            ("/a/d/animal/tiger:verb", "1 y=d/animal/tiger"),
            ("/foo/a:verb", "2 x=foo"),
            ("/foo/bar/baz/b:verb", "3 x=foo/bar/baz"),
            ("/e/foo/f:verb", "4 x=foo"),
            ("/g/foo/bar/h:verb", "5 x=foo/bar"),
            ("/a/world:other", "-"),
        ]);
        known(&[
            "/some/const:verb",
            "/some/*:verb",
            "/some/*/foo:verb",
            "/other/**:verb",
            "/other/**/const:verb",
        ])
        .all(&[
            ("/some/const:verb", "0"),
            ("/some/other:verb", "1"),
            ("/some/other:verb/", "-"),
            ("/some/bar/foo:verb", "2"),
            ("/some/foo1/foo2/foo:verb", "-"),
            ("/some/foo/bar:verb", "-"),
            ("/other/bar/foo:verb", "3"),
            ("/other/bar/foo/const:verb", "4"),
        ]);
        known(&["/*/*:verb"]).all(&[("/some:verb/const:verb", "0")]);
        // What no template has as its verb is part of the segment.
        known(&["/foo/*", "/bar/{x}"])
            .all(&[("/foo/other:verb", "0"), ("/bar/urn:x:1", "1 x=urn:x:1")]);
        known(&["/foo/*/hello"]).all(&[("/foo/other:verb/hello", "0")]);
    }

    #[test]
    fn literals_behind_a_wildcard_count() {
        known(&[
            "/a/{x=b/**}",
            "/a/{x=b/**}/z",
            "/a/{x=b/**}/y/z",
            "/a/{x=b/**}:verb",
            "/a/{x=**}",
            "/c/{x=*}/{y=d/**}/e",
            "/c/{x=*}/{y=d/**}/e:verb",
            "/f/{x=*}/{y=**}/g",
            "/f/{x=*}/{y=**}/g:verb",
            "/a/{x=b/*/y/z/**}/foo",
            "/a/{x=b/*/**/y/z}/foo",
        ])
        .all(&[
            ("/a/b/hello/world/c", "0 x=b/hello/world/c"),
            ("/a/b/world/c/z", "1 x=b/world/c"),
            ("/a/b/world/c/y/z", "2 x=b/world/c"),
            ("/a/b/world/c:verb", "3 x=b/world/c"),
            ("/a/hello/b/world/c", "4 x=hello/b/world/c"),
            ("/c/hello/d/esp/world/e", "5 x=hello y=d/esp/world"),
            ("/c/hola/d/esp/mundo/e:verb", "6 x=hola y=d/esp/mundo"),
            ("/f/foo/bar/baz/g", "7 x=foo y=bar/baz"),
            ("/f/foo/bar/baz/g:verb", "8 x=foo y=bar/baz"),
            ("/a/b/foo/y/z/bar/baz/foo", "9 x=b/foo/y/z/bar/baz"),
            ("/a/b/foo/bar/baz/y/z/foo", "10 x=b/foo/bar/baz/y/z"),
        ]);
    }

    #[test]
    fn paths_match_whole_and_by_method() {
        known(&["/prefix/middle/suffix", "/prefix/middle", "/prefix"]).all(&[
            ("/prefix/middle/suffix", "0"),
            ("/prefix/middle", "1"),
            ("/prefix", "2"),
            ("/prefix/middle/suffix/other", "-"),
            ("/prefix/middle/other", "-"),
            ("/other", "-"),
            ("POST /prefix", "!GET"),
        ]);
        known(&[]).all(&[("/a", "-")]);
        known(&["GET /a/*", "POST /a/b", "* /any", "PUT /a/{x}"]).all(&[
            // The literal has no GET, so the next way is tried.
            ("GET /a/b", "0"),
            ("POST /a/b", "1"),
            ("PUT /a/b", "3 x=b"),
            ("DELETE /any", "2"),
            ("DELETE /a/c", "!GET,PUT"),
        ]);
    }

    #[test]
    fn the_same_paths_twice_are_told() {
        let mut table = Table::default();
        let template = |text: &str| Template::parse(text).unwrap();
        table.add("GET", &template("/a/{x}/b"), 0).unwrap();
        assert_eq!(table.add("GET", &template("/a/{y=*}/b"), 1), Err(0));
        assert_eq!(table.add("POST", &template("/a/{y=*}/b"), 1), Ok(()));
        assert_eq!(table.add("GET", &template("/a/{y=*}/b:v"), 2), Ok(()));
        table.add("GET", &template("/c/{x=**}/b"), 3).unwrap();
        assert_eq!(table.add("GET", &template("/{x=c/**/b}"), 4), Err(3));
    }
}
