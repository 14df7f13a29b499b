//! The path that the upstream sees.

use contract::snapshot::{PathMatch, PathRewrite};

use super::path;

/// How a route changes the path of its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rewrite {
    /// Sent on as it was matched.
    #[default]
    Keep,
    /// The first `cut` bytes of the normalised path give way to `with`. Segments stay whole: `cut`
    /// ends a segment, and the joint has one `/`.
    Replace {
        cut: usize,
        /// Empty, or begins with `/`.
        with: Box<[u8]>,
    },
}

impl Rewrite {
    pub(crate) fn build(matched: &PathMatch, rewrite: &PathRewrite) -> Result<Rewrite, String> {
        let with = match rewrite {
            PathRewrite::Keep => return Ok(Rewrite::Keep),
            PathRewrite::StripPrefix => Box::default(),
            PathRewrite::ReplacePrefix(with) if with.is_empty() => Box::default(),
            PathRewrite::ReplacePrefix(with) => path::normalise_pattern(with)?,
        };
        let cut = match matched {
            PathMatch::Exact(text) => path::normalise_pattern(text)?.len(),
            PathMatch::Prefix(text) => prefix(text)?.len(),
            PathMatch::Template(_) => {
                return Err("a path with named segments has no prefix to strip or replace; use \
                            request.path"
                    .into());
            }
            PathMatch::Regex(_) => {
                return Err("a regular expression has no prefix to strip or replace; \
                            match the path by prefix or leave the rewrite out"
                    .into());
            }
        };
        Ok(Rewrite::Replace { cut, with })
    }
}

/// A prefix pattern in normal form without its last `/`: `/users/` means `/users`, `/` is empty.
pub(crate) fn prefix(text: &str) -> Result<Box<[u8]>, String> {
    if text.is_empty() {
        return Ok(Box::default());
    }
    let normal = path::normalise_pattern(text)?;
    Ok(normal.strip_suffix(b"/").unwrap_or(&normal).into())
}

/// The path to send upstream for the normalised `path` that a route matched. It begins with `/`.
///
/// Only a rewritten path is written to `out`, whose content is replaced.
pub fn rewrite_path<'a>(rewrite: &Rewrite, path: &'a [u8], out: &'a mut Vec<u8>) -> &'a [u8] {
    let Rewrite::Replace { cut, with } = rewrite else { return path };
    let rest = path.get(*cut..).unwrap_or_default();
    out.clear();
    let joint = rest.first() == Some(&b'/');
    out.extend_from_slice(if joint { with.strip_suffix(b"/").unwrap_or(with) } else { with });
    out.extend_from_slice(rest);
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(matched: PathMatch, rewrite: PathRewrite, path: &str) -> String {
        let rewrite = Rewrite::build(&matched, &rewrite).unwrap();
        let mut out = b"left over".to_vec();
        String::from_utf8(rewrite_path(&rewrite, path.as_bytes(), &mut out).to_vec()).unwrap()
    }

    #[test]
    fn prefixes() {
        for (prefix, with, path, want) in [
            ("/users", "/v2", "/users/7", "/v2/7"),
            ("/users", "/v2", "/users", "/v2"),
            ("/users", "/v2", "/users/", "/v2/"),
            ("/users/", "/v2/", "/users/7", "/v2/7"),
            ("/users", "/v2/", "/users", "/v2/"),
            ("/users", "/", "/users/7", "/7"),
            ("/users", "/", "/users", "/"),
            ("/users", "", "/users/7/", "/7/"),
            ("/users", "", "/users", "/"),
            ("/users", "", "/users/", "/"),
            ("/", "/v2", "/", "/v2/"),
            ("/", "/v2", "/a", "/v2/a"),
            ("/", "", "/a", "/a"),
            ("/caf\u{e9}", "/\u{e9}", "/caf%C3%A9/x", "/%C3%A9/x"),
        ] {
            let matched = PathMatch::Prefix(prefix.into());
            let replace = PathRewrite::ReplacePrefix(with.into());
            assert_eq!(rewritten(matched.clone(), replace, path), want, "{prefix} {with} {path}");
            if with.is_empty() {
                assert_eq!(rewritten(matched, PathRewrite::StripPrefix, path), want);
            }
        }
    }

    #[test]
    fn whole_paths() {
        let exact = || PathMatch::Exact("/users/".into());
        let replace = PathRewrite::ReplacePrefix("/v2/all".into());
        assert_eq!(rewritten(exact(), replace, "/users/"), "/v2/all");
        assert_eq!(rewritten(exact(), PathRewrite::StripPrefix, "/users/"), "/");
        assert_eq!(rewritten(exact(), PathRewrite::Keep, "/users/"), "/users/");
    }

    #[test]
    fn refusals() {
        let regex = PathMatch::Regex("/a".into());
        assert!(Rewrite::build(&regex, &PathRewrite::Keep).is_ok());
        let problem = Rewrite::build(&regex, &PathRewrite::StripPrefix).unwrap_err();
        assert!(problem.contains("match the path by prefix"), "{problem}");
        let prefix = PathMatch::Prefix("/a".into());
        for with in ["v2", "/..", "/a?b"] {
            let replace = PathRewrite::ReplacePrefix(with.into());
            assert!(Rewrite::build(&prefix, &replace).is_err(), "{with}");
        }
    }
}
