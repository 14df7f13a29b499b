//! The syntax of nginx's configuration: directives, blocks, includes.
//!
//! Written here as no crate for it is kept: `nginx-config` has not moved since 2019, and knows only the
//! directives of its time. The syntax itself is small, and has no grammar per directive.

use std::path::{Path, PathBuf};

use super::Place;

/// Deepest nesting of blocks, and of files in files.
const MAX_DEPTH: usize = 32;
/// Directives in all files together.
const MAX_DIRECTIVES: usize = 1_000_000;
/// Files that are included, at most.
const MAX_FILES: usize = 1_000;
/// Largest included file, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// One directive, with what is in its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    pub place: Place,
    pub name: String,
    pub args: Vec<String>,
    /// `None`: it ends with a semicolon.
    pub block: Option<Vec<Directive>>,
}

impl Directive {
    pub fn arg(&self, at: usize) -> &str {
        self.args.get(at).map_or("", String::as_str)
    }

    /// As it was written, more or less.
    pub fn line(&self) -> String {
        let mut words = vec![self.name.as_str()];
        words.extend(self.args.iter().map(String::as_str));
        words.join(" ").chars().take(100).collect()
    }
}

/// Parses `text` and what it includes from below `directory`.
///
/// # Errors
/// What is wrong, with file and line.
pub fn parse(file: &str, text: &str, directory: &Path) -> Result<Vec<Directive>, String> {
    let mut budget = Budget { directives: MAX_DIRECTIVES, files: MAX_FILES };
    parse_file(file, text, directory, &mut budget, 0)
}

struct Budget {
    directives: usize,
    files: usize,
}

fn parse_file(
    file: &str,
    text: &str,
    directory: &Path,
    budget: &mut Budget,
    depth: usize,
) -> Result<Vec<Directive>, String> {
    let mut words = Words { file, rest: text, line: 1 };
    let (list, closed) = block(&mut words, budget, depth)?;
    if closed {
        return Err(format!("{file}:{}: this `}}` closes nothing", words.line));
    }
    included(list, directory, budget, depth)
}

/// Directives up to the end, or to the brace that closes the block.
fn block(
    words: &mut Words<'_>,
    budget: &mut Budget,
    depth: usize,
) -> Result<(Vec<Directive>, bool), String> {
    let mut list = Vec::new();
    loop {
        let mut line: Vec<String> = Vec::new();
        let mut place = None;
        let (below, end) = loop {
            let at = words.skip_blanks();
            match words.next()? {
                Some(Token::Word(word)) => {
                    place.get_or_insert(at);
                    line.push(word);
                }
                Some(Token::Semicolon) => break (None, None),
                Some(Token::Open) if depth >= MAX_DEPTH => {
                    return Err(words.error(&format!("nested deeper than {MAX_DEPTH} blocks")));
                }
                Some(Token::Open) if line.first().is_some_and(|name| is_lua(name)) => {
                    words.skip_block()?;
                    break (Some(Vec::new()), None);
                }
                Some(Token::Open) => {
                    let (below, closed) = block(words, budget, depth + 1)?;
                    if !closed {
                        return Err(words.error("a block is not closed"));
                    }
                    break (Some(below), None);
                }
                Some(Token::Close) => break (None, Some(true)),
                None => break (None, Some(false)),
            }
        };
        let mut line = line.into_iter();
        match (line.next(), end) {
            (Some(name), None) => {
                budget.directives = budget.directives.checked_sub(1).ok_or_else(|| {
                    words.error(&format!("more than {MAX_DIRECTIVES} directives"))
                })?;
                let line_at = place.unwrap_or(words.line);
                let place = Place { file: words.file.into(), line: line_at };
                list.push(Directive { place, name, args: line.collect(), block: below });
            }
            (Some(name), Some(_)) => {
                return Err(words.error(&format!("`{name}` ends without `;`")));
            }
            (None, Some(closed)) => return Ok((list, closed)),
            (None, None) if below.is_some() => return Err(words.error("a block without a name")),
            // A semicolon too many does no harm.
            (None, None) => {}
        }
    }
}

fn is_lua(name: &str) -> bool {
    name.ends_with("_by_lua_block")
}

/// The same with what `include` names in its place.
fn included(
    list: Vec<Directive>,
    directory: &Path,
    budget: &mut Budget,
    depth: usize,
) -> Result<Vec<Directive>, String> {
    let mut out = Vec::new();
    for mut directive in list {
        if let Some(below) = directive.block.take() {
            directive.block = Some(included(below, directory, budget, depth)?);
        }
        if directive.name != "include" {
            out.push(directive);
            continue;
        }
        let Place { file, line } = &directive.place;
        if depth >= MAX_DEPTH {
            return Err(format!("{file}:{line}: files include each other too deeply"));
        }
        let found = matching(&directory.join(directive.arg(0)));
        if found.is_empty() && !directive.arg(0).contains('*') {
            // Left as it is: who reads it says that it was not followed.
            out.push(directive);
            continue;
        }
        for path in found {
            budget.files = budget
                .files
                .checked_sub(1)
                .ok_or_else(|| format!("{file}:{line}: more than {MAX_FILES} included files"))?;
            let name = path.display().to_string();
            let small = std::fs::metadata(&path).is_ok_and(|meta| meta.len() <= MAX_BYTES);
            let text = match small {
                true => std::fs::read_to_string(&path).map_err(|error| error.to_string()),
                false => Err(format!("it is no file of at most {MAX_BYTES} bytes")),
            };
            let text =
                text.map_err(|error| format!("{file}:{line}: cannot read {name}: {error}"))?;
            out.extend(parse_file(&name, &text, directory, budget, depth + 1)?);
        }
    }
    Ok(out)
}

/// The files of a pattern with `*` in its last part, sorted.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    if !name.contains('*') {
        return if pattern.is_file() { vec![pattern.into()] } else { Vec::new() };
    }
    let directory = pattern.parent().unwrap_or(Path::new("/"));
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let fits = |path: &PathBuf| {
        path.is_file() && path.file_name().is_some_and(|file| fits(&name, &file.to_string_lossy()))
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(fits).collect();
    found.sort();
    found
}

/// Whether `name` is like `pattern`, in which `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    // A hidden file is only found by a name that says so.
    rest.ends_with(last) && (pattern.starts_with('.') || !name.starts_with('.'))
}

enum Token {
    Word(String),
    Semicolon,
    Open,
    Close,
}

struct Words<'t> {
    file: &'t str,
    rest: &'t str,
    line: usize,
}

impl Words<'_> {
    fn error(&self, message: &str) -> String {
        format!("{}:{}: {message}", self.file, self.line)
    }

    fn take(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        self.line += usize::from(c == '\n');
        Some(c)
    }

    /// Skips blanks and comments; the line of what comes next.
    fn skip_blanks(&mut self) -> usize {
        while let Some(c) = self.rest.chars().next() {
            match c {
                '#' => {
                    while self.rest.chars().next().is_some_and(|c| c != '\n') {
                        self.take();
                    }
                }
                c if c.is_whitespace() => {
                    self.take();
                }
                _ => break,
            }
        }
        self.line
    }

    fn next(&mut self) -> Result<Option<Token>, String> {
        Ok(Some(match self.rest.chars().next() {
            None => return Ok(None),
            Some(';') => {
                self.take();
                Token::Semicolon
            }
            Some('{') => {
                self.take();
                Token::Open
            }
            Some('}') => {
                self.take();
                Token::Close
            }
            Some(quote @ ('"' | '\'')) => {
                self.take();
                Token::Word(self.quoted(quote)?)
            }
            Some(_) => Token::Word(self.bare()),
        }))
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let begin = self.line;
        let mut word = String::new();
        while let Some(c) = self.take() {
            match c {
                c if c == quote => return Ok(word),
                '\\' => self.escape(&mut word),
                c => word.push(c),
            }
        }
        Err(format!("{}:{begin}: this quote is not closed", self.file))
    }

    /// Of escapes only these are nginx's own; others stay, for regular expressions.
    fn escape(&mut self, word: &mut String) {
        match self.take() {
            Some(c @ ('"' | '\'' | '\\')) => word.push(c),
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(c) => word.extend(['\\', c]),
            None => word.push('\\'),
        }
    }

    fn bare(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.rest.chars().next() {
            match c {
                // ${name} is part of a word.
                '{' if word.ends_with('$') => {
                    while let Some(c) = self.take() {
                        word.push(c);
                        if c == '}' || c == '\n' {
                            break;
                        }
                    }
                }
                ';' | '{' | '}' => break,
                c if c.is_whitespace() => break,
                '\\' => {
                    self.take();
                    match self.rest.chars().next() {
                        // A blank or a brace that does not end the word.
                        Some(c) if c.is_whitespace() || matches!(c, ';' | '{' | '}') => {
                            self.take();
                            word.push(c);
                        }
                        _ => {
                            word.push('\\');
                            word.extend(self.take());
                        }
                    }
                }
                c => {
                    self.take();
                    word.push(c);
                }
            }
        }
        word
    }

    /// To the brace that closes a block of another language.
    fn skip_block(&mut self) -> Result<(), String> {
        let begin = self.line;
        let mut depth = 1;
        while let Some(c) = self.take() {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            if depth == 0 {
                return Ok(());
            }
        }
        Err(format!("{}:{begin}: this block is not closed", self.file))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Vec<Directive>, String> {
        parse("t.conf", text, Path::new("/nonexistent"))
    }

    #[test]
    fn words_quotes_blocks_and_comments() {
        let list = parsed(
            "user www; # who\nhttp {\n  server { listen 80; location ~ \"\\.(a|b){2}$\" { return 301 'https://$host\\'s'; } }\n}\nset $x ${y}z;;",
        )
        .unwrap();
        let names: Vec<String> = list.iter().map(Directive::line).collect();
        assert_eq!(names, ["user www", "http", "set $x ${y}z"]);
        assert_eq!(list[1].place.line, 2);
        let server = &list[1].block.as_ref().unwrap()[0];
        let location = &server.block.as_ref().unwrap()[1];
        assert_eq!(location.args, ["~", r"\.(a|b){2}$"]);
        assert_eq!(location.block.as_ref().unwrap()[0].args, ["301", "https://$host's"]);
        assert_eq!(list[2].place.line, 5);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line) in [
            ("a;\nb", "t.conf:2: `b` ends without `;`"),
            ("a {\n", "t.conf:2: a block is not closed"),
            ("a;\n}", "t.conf:2: this `}` closes nothing"),
            ("\n\"x", "t.conf:2: this quote is not closed"),
            ("{ }", "t.conf:1: a block without a name"),
        ] {
            assert_eq!(parsed(text), Err(line.into()), "{text}");
        }
        assert!(parsed(&"a {".repeat(100)).unwrap_err().contains("deeper"));
    }

    #[test]
    fn lua_is_passed_over() {
        let list = parsed("a_by_lua_block { local x = { \"y;\" } }\nb;").unwrap();
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn patterns_of_files() {
        for (pattern, name, fit) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("*.conf", ".a.conf", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "ac", false),
            ("*", "x", true),
        ] {
            assert_eq!(fits(pattern, name), fit, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z ;{}\"'\\\\#$\n~^*./]{0,200}", any in ".{0,100}") {
            _ = parsed(&text);
            _ = parsed(&any);
        }
    }
}
