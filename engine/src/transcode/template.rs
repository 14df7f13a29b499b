//! Path templates of http rules (`google/api/http.proto`).
//!
//! ```text
//! Template  = "/" | "/" Segments [ Verb ] ;
//! Segments  = Segment { "/" Segment } ;
//! Segment   = "*" | "**" | LITERAL | Variable ;
//! Variable  = "{" FieldPath [ "=" Segments ] "}" ;
//! FieldPath = IDENT { "." IDENT } ;
//! Verb      = ":" LITERAL ;
//! ```
//!
//! Behind `**` there are literals only, so that a path has one reading.

use super::percent;
use crate::limits;

/// What a path must look like, and which parts of it are fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub segments: Vec<Segment>,
    /// Empty: none.
    pub verb: Box<[u8]>,
    pub variables: Vec<Variable>,
}

/// One part of a path between slashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Percent-decoded.
    Literal(Box<[u8]>),
    /// `*`: any one.
    One,
    /// `**`: any number of them.
    Rest,
}

/// A field that parts of the path stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// `a.b.c`
    pub field: String,
    /// Segments of the template, the end excluded.
    pub start: usize,
    pub end: usize,
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {at}")]
pub struct TemplateError {
    pub at: usize,
    pub problem: &'static str,
}

impl Template {
    /// # Errors
    /// Where it breaks the grammar.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let mut parser = Parser { text: text.as_bytes(), at: 0 };
        let mut template =
            Template { segments: Vec::new(), verb: Box::default(), variables: Vec::new() };
        if !parser.eat(b'/') {
            return Err(parser.error("a path template begins with `/`"));
        }
        if parser.peek().is_none() {
            return Ok(template);
        }
        parser.segments(&mut template, false)?;
        if parser.eat(b':') {
            template.verb = parser.literal()?;
        }
        match parser.peek() {
            None => Ok(template),
            Some(_) => Err(parser.error("expected `/`, `:` or the end")),
        }
    }

    /// What of a path with so many segments stands for a variable.
    pub fn range(&self, variable: &Variable, segments: usize) -> (usize, usize) {
        let rest = self.segments.iter().position(|segment| *segment == Segment::Rest);
        let moved = |at: usize| match rest {
            Some(rest) if at > rest => (at + segments).saturating_sub(self.segments.len()),
            _ => at,
        };
        (moved(variable.start), moved(variable.end))
    }

    /// A variable of one segment is decoded whole; of more, `%2F` stays as it is, as it would look like
    /// what is between segments.
    pub fn is_multi(&self, variable: &Variable) -> bool {
        let own = self.segments.get(variable.start..variable.end).unwrap_or_default();
        own.len() != 1 || own.contains(&Segment::Rest)
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn error(&self, problem: &'static str) -> TemplateError {
        TemplateError { at: self.at, problem }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn segments(
        &mut self,
        template: &mut Template,
        in_variable: bool,
    ) -> Result<(), TemplateError> {
        loop {
            self.segment(template, in_variable)?;
            if !self.eat(b'/') {
                return Ok(());
            }
        }
    }

    fn segment(&mut self, template: &mut Template, in_variable: bool) -> Result<(), TemplateError> {
        let start = self.at;
        if template.segments.len() >= limits::TEMPLATE_SEGMENTS {
            return Err(self.error("there are too many segments"));
        }
        if self.eat(b'{') {
            return match in_variable {
                true => Err(TemplateError { at: start, problem: "a variable has none in it" }),
                false => self.variable(template),
            };
        }
        let segment = if self.eat(b'*') {
            if self.eat(b'*') { Segment::Rest } else { Segment::One }
        } else {
            Segment::Literal(self.literal()?)
        };
        let after_rest = template.segments.contains(&Segment::Rest);
        if after_rest && !matches!(segment, Segment::Literal(_)) {
            let problem = "behind `**` there may be literals only";
            return Err(TemplateError { at: start, problem });
        }
        template.segments.push(segment);
        Ok(())
    }

    fn variable(&mut self, template: &mut Template) -> Result<(), TemplateError> {
        let begin = self.at;
        loop {
            let start = self.at;
            while self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_') {
                self.at += 1;
            }
            let word = self.text.get(start..self.at).unwrap_or_default();
            if word.is_empty() || word.first().is_some_and(u8::is_ascii_digit) {
                return Err(TemplateError { at: start, problem: "expected the name of a field" });
            }
            if !self.eat(b'.') {
                break;
            }
        }
        let field = self.text.get(begin..self.at).unwrap_or_default();
        let field = String::from_utf8_lossy(field).into_owned();
        let start = template.segments.len();
        if self.eat(b'=') {
            self.segments(template, true)?;
        } else {
            if template.segments.contains(&Segment::Rest) {
                let problem = "behind `**` there may be literals only";
                return Err(TemplateError { at: begin, problem });
            }
            template.segments.push(Segment::One);
        }
        if !self.eat(b'}') {
            return Err(self.error("expected `}`"));
        }
        if template.variables.iter().any(|one| one.field == field) {
            return Err(TemplateError { at: begin, problem: "the field is there twice" });
        }
        template.variables.push(Variable { field, start, end: template.segments.len() });
        Ok(())
    }

    fn literal(&mut self) -> Result<Box<[u8]>, TemplateError> {
        let start = self.at;
        while let Some(byte) = self.peek() {
            match byte {
                b'/' | b':' | b'{' | b'}' => break,
                b'*' | b'=' if byte == b'*' => return Err(self.error("`*` stands by itself")),
                b'?' | b'#' | ..=0x20 | 0x7f => {
                    return Err(self.error("a path does not have this character"));
                }
                _ => self.at += 1,
            }
        }
        let literal = self.text.get(start..self.at).unwrap_or_default();
        match literal.is_empty() {
            true => Err(TemplateError { at: start, problem: "a segment is empty" }),
            false => Ok(percent::decoded(literal, percent::Keep::Nothing).into_owned().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a|*|**` `:verb` `field=start..end`
    fn told(text: &str) -> Option<String> {
        let template = Template::parse(text).ok()?;
        let segments: Vec<String> = template
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => String::from_utf8_lossy(text).into_owned(),
                Segment::One => "*".into(),
                Segment::Rest => "**".into(),
            })
            .collect();
        let mut out = segments.join("|");
        if !template.verb.is_empty() {
            out.push_str(&format!(" :{}", String::from_utf8_lossy(&template.verb)));
        }
        for one in &template.variables {
            out.push_str(&format!(" {}={}..{}", one.field, one.start, one.end));
        }
        Some(out)
    }

    /// The cases are those that the tests of grpc-httpjson-transcoding (`http_template_test.cc`, Apache-2.0)
    /// and grpc-gateway (`httprule`, BSD-3-Clause) look at.
    #[test]
    fn templates_of_the_public_suites_parse() {
        for (text, expected) in [
            ("/", ""),
            ("/v1", "v1"),
            ("/shelves/{shelf}/books/{book}", "shelves|*|books|* shelf=1..2 book=3..4"),
            ("/shelves/**", "shelves|**"),
            ("/**", "**"),
            ("/a:foo", "a :foo"),
            ("/a/b/c:foo", "a|b|c :foo"),
            ("/*/**", "*|**"),
            ("/*/a/**", "*|a|**"),
            ("/a/{a.b.c}", "a|* a.b.c=1..2"),
            ("/a/{a.b.c=*}", "a|* a.b.c=1..2"),
            ("/a/{b=*}", "a|* b=1..2"),
            ("/a/{b=**}", "a|** b=1..2"),
            ("/a/{b=c/*}", "a|c|* b=1..3"),
            ("/a/{b=c/*/d}", "a|c|*|d b=1..4"),
            ("/a/{b=c/**}", "a|c|** b=1..3"),
            ("/a/{b=c/**}/d/e", "a|c|**|d|e b=1..3"),
            ("/a/{b=c/**/d}/e", "a|c|**|d|e b=1..4"),
            ("/a/{b=c/**/d}/e:verb", "a|c|**|d|e :verb b=1..4"),
            ("/*:verb", "* :verb"),
            ("/**:verb", "** :verb"),
            ("/{a}:verb", "* :verb a=0..1"),
            ("/a/b/*:verb", "a|b|* :verb"),
            ("/a/b/**:verb", "a|b|** :verb"),
            ("/a/b/{a}:verb", "a|b|* :verb a=2..3"),
            ("/{x}", "* x=0..1"),
            ("/{x.y.z=*/a/b}/c", "*|a|b|c x.y.z=0..3"),
            ("/{x.y.z=a/**/b}/c/d:custom", "a|**|b|c|d :custom x.y.z=0..3"),
            ("/{x.y.z=*/*}:verb", "*|* :verb x.y.z=0..2"),
            ("/a/{b=*}/**:verb", "a|*|** :verb b=1..2"),
            ("/v1/{name=projects/*/topics/*}", "v1|projects|*|topics|* name=1..5"),
            ("/v1/a%20b", "v1|a b"),
            ("/{user_id}", "* user_id=0..1"),
        ] {
            assert_eq!(told(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_the_public_suites_refuse_is_refused() {
        for text in [
            "",
            "//",
            "/{}",
            "/a/",
            "/a//b",
            ":verb",
            "/:verb",
            "/a/:verb",
            ":",
            "/:",
            "/*:",
            "/**:",
            "/{var}:",
            "/a/b/:",
            "/a/b/*:",
            "/a/b/**:",
            "/a/b/{var}:",
            "/a/{",
            "/a/{var",
            "/a/{var.",
            "/a/{x=var:verb}",
            "a",
            "{x}",
            "{x=/a}",
            "{x=/a/b}",
            "a/b",
            "a/b/{x}",
            "a/{x}/b",
            "a/{x}/b:verb",
            "/a/{var=/b}",
            "/{var=a/{nested=b}}",
            "/a{x}",
            "/{x}a",
            "/a{x}b",
            "/{x}a{y}",
            "/a/b{x}",
            "/a/{x}b",
            "/a/b{x}c",
            "/a/{x}b{y}",
            "/a/b{x}/s",
            "/a/{x}b/s",
            "/a/b{x}c/s",
            "/a/{x}b{y}/s",
            "/a{x=b/**}/{y=*}",
            "/a{x=b/**}/bb/{y=*}",
            "/a/**/*",
            "/a/**/foo/*",
            "/a/**/**",
            "/a/**/foo/**",
            "/{1a}",
            "/{a-b}",
            "/{x}/{x}",
            "/a?b",
            "/a b",
            "/a/**/{x}",
            "/a:b:c",
            "/a*",
            "/*a",
            "/a:b/c",
        ] {
            assert_eq!(told(text), None, "{text}");
        }
    }

    #[test]
    fn errors_say_where() {
        let error = Template::parse("/v1/{name=a/*").unwrap_err();
        assert_eq!(error.to_string(), "expected `}` at byte 13");
    }
}
