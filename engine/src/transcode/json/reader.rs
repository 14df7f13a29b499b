//! JSON (RFC 8259), read in one pass: no more and no less than its grammar, in UTF-8.

use std::borrow::Cow;

use super::Fault;
use crate::limits;

/// Reads a text value by value.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// What a value is, by its first character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Object,
    Array,
    Text,
    Number,
    Bool,
    Null,
}

impl<'a> Reader<'a> {
    /// # Errors
    /// It is no UTF-8.
    pub fn new(text: &'a [u8]) -> Result<Reader<'a>, Fault> {
        match std::str::from_utf8(text) {
            Ok(text) => Ok(Reader { text, at: 0, depth: 0 }),
            Err(error) => Err(Fault::at(error.valid_up_to(), "the text is not UTF-8")),
        }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn fault(&self, problem: &'static str) -> Fault {
        Fault::at(self.at, problem)
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    #[inline]
    fn skip_space(&mut self) -> Option<u8> {
        let bytes = self.bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// What comes next.
    ///
    /// # Errors
    /// Nothing, or what begins no value.
    #[inline]
    pub fn peek(&mut self) -> Result<Next, Fault> {
        match self.skip_space() {
            Some(b'{') => Ok(Next::Object),
            Some(b'[') => Ok(Next::Array),
            Some(b'"') => Ok(Next::Text),
            Some(b'-' | b'0'..=b'9') => Ok(Next::Number),
            Some(b't' | b'f') => Ok(Next::Bool),
            Some(b'n') => Ok(Next::Null),
            Some(_) => Err(self.fault("this is no JSON value")),
            None => Err(self.fault("the text ends too early")),
        }
    }

    /// # Errors
    /// Something is left.
    pub fn end(&mut self) -> Result<(), Fault> {
        match self.skip_space() {
            None => Ok(()),
            Some(_) => Err(self.fault("something is behind the value")),
        }
    }

    fn expect(&mut self, byte: u8, problem: &'static str) -> Result<(), Fault> {
        match self.skip_space() {
            Some(next) if next == byte => {
                self.at += 1;
                Ok(())
            }
            _ => Err(self.fault(problem)),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        match self.bytes().get(self.at..self.at + word.len()) {
            Some(there) if there == word.as_bytes() => {
                self.at += word.len();
                Ok(())
            }
            _ => Err(self.fault("this is no JSON value")),
        }
    }

    pub fn null(&mut self) -> Result<(), Fault> {
        self.skip_space();
        self.word("null")
    }

    pub fn boolean(&mut self) -> Result<bool, Fault> {
        match self.skip_space() {
            Some(b't') => self.word("true").map(|()| true),
            Some(b'f') => self.word("false").map(|()| false),
            _ => Err(self.fault("expected true or false")),
        }
    }

    /// A number as it is written.
    pub fn number(&mut self) -> Result<&'a str, Fault> {
        self.skip_space();
        let bytes = self.bytes();
        let start = self.at;
        let mut at = self.at + usize::from(bytes.get(self.at) == Some(&b'-'));
        let digits = |mut at: usize| {
            let start = at;
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            (at > start).then_some(at)
        };
        let bad = || Fault::at(start, "this is no number");
        at = match bytes.get(at) {
            Some(b'0') => at + 1,
            _ => digits(at).ok_or_else(bad)?,
        };
        if bytes.get(at) == Some(&b'.') {
            at = digits(at + 1).ok_or_else(bad)?;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            at = digits(at).ok_or_else(bad)?;
        }
        if bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'.')) {
            return Err(bad());
        }
        self.at = at;
        Ok(self.text.get(start..at).unwrap_or_default())
    }

    /// A text, unescaped.
    pub fn text(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.expect(b'"', "expected a text")?;
        let bytes = self.bytes();
        let start = self.at;
        loop {
            match bytes.get(self.at) {
                Some(b'"') => {
                    let text = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(Cow::Borrowed(text));
                }
                Some(b'\\') => break,
                Some(..=0x1f) => return Err(self.fault("a text has a control character in it")),
                Some(_) => self.at += 1,
                None => return Err(self.fault("a text does not end")),
            }
        }
        let mut out = String::with_capacity(self.at - start + 16);
        let mut from = start;
        loop {
            match bytes.get(self.at) {
                Some(b'"') => {
                    out.push_str(self.text.get(from..self.at).unwrap_or_default());
                    self.at += 1;
                    return Ok(Cow::Owned(out));
                }
                Some(b'\\') => {
                    out.push_str(self.text.get(from..self.at).unwrap_or_default());
                    self.at += 1;
                    out.push(self.escape()?);
                    from = self.at;
                }
                Some(..=0x1f) => return Err(self.fault("a text has a control character in it")),
                Some(_) => self.at += 1,
                None => return Err(self.fault("a text does not end")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let byte = self.bytes().get(self.at).copied();
        self.at += 1;
        Ok(match byte {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let bad = "an escape is not that of a character";
                let unit = self.hex()?;
                let code = match unit {
                    0xd800..=0xdbff => {
                        if self.bytes().get(self.at..self.at + 2) != Some(b"\\u") {
                            return Err(self.fault(bad));
                        }
                        self.at += 2;
                        let low = self.hex()?;
                        if !(0xdc00..=0xdfff).contains(&low) {
                            return Err(self.fault(bad));
                        }
                        0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
                    }
                    unit => unit,
                };
                char::from_u32(code).ok_or_else(|| self.fault(bad))?
            }
            _ => return Err(self.fault("there is no such escape")),
        })
    }

    fn hex(&mut self) -> Result<u32, Fault> {
        let digits = self.bytes().get(self.at..self.at + 4).unwrap_or_default();
        let mut value = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16);
            value = value * 16 + digit.ok_or_else(|| self.fault("there is no such escape"))?;
        }
        if digits.len() < 4 {
            return Err(self.fault("there is no such escape"));
        }
        self.at += 4;
        Ok(value)
    }

    fn deeper(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        match self.depth > limits::MESSAGE_DEPTH {
            true => Err(self.fault("values are nested too deeply")),
            false => Ok(()),
        }
    }

    pub fn begin_object(&mut self) -> Result<(), Fault> {
        self.deeper()?;
        self.expect(b'{', "expected an object")
    }

    /// The next key of an object that has begun; `None`: it is over. `first`: none has been read.
    #[inline]
    pub fn key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, Fault> {
        match self.skip_space() {
            Some(b'}') => {
                self.at += 1;
                self.depth -= 1;
                return Ok(None);
            }
            Some(b',') if !first => self.at += 1,
            Some(_) if first => {}
            _ => return Err(self.fault("expected `,` or `}`")),
        }
        if self.skip_space() != Some(b'"') {
            return Err(self.fault("expected a key"));
        }
        let key = self.text()?;
        self.expect(b':', "expected `:`")?;
        Ok(Some(key))
    }

    pub fn begin_array(&mut self) -> Result<(), Fault> {
        self.deeper()?;
        self.expect(b'[', "expected an array")
    }

    /// Whether an array that has begun has another element.
    #[inline]
    pub fn element(&mut self, first: bool) -> Result<bool, Fault> {
        match self.skip_space() {
            Some(b']') => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                match self.skip_space() {
                    Some(b']') => Err(self.fault("expected a value")),
                    _ => Ok(true),
                }
            }
            Some(_) if first => Ok(true),
            _ => Err(self.fault("expected `,` or `]`")),
        }
    }

    /// Passes over a value.
    pub fn skip(&mut self) -> Result<(), Fault> {
        match self.peek()? {
            Next::Null => self.null(),
            Next::Bool => self.boolean().map(|_| ()),
            Next::Number => self.number().map(|_| ()),
            Next::Text => self.text().map(|_| ()),
            Next::Array => {
                self.begin_array()?;
                let mut first = true;
                while self.element(first)? {
                    first = false;
                    self.skip()?;
                }
                Ok(())
            }
            Next::Object => {
                self.begin_object()?;
                let mut first = true;
                while self.key(first)?.is_some() {
                    first = false;
                    self.skip()?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(text: &str) -> bool {
        let read = |text: &str| {
            let mut reader = Reader::new(text.as_bytes())?;
            reader.skip()?;
            reader.end()
        };
        read(text).is_ok()
    }

    #[test]
    fn the_grammar_is_that_of_json() {
        for text in [
            "1",
            "-0",
            "0.5e-3",
            "1E+5",
            "\"\"",
            "\"\\u00e9\\ud83d\\ude01\\n\"",
            "[]",
            "[1, 2 ]",
            "{}",
            " { \"a\" : [ {} , null, true,false ] } \n",
            "\"é\"",
        ] {
            assert!(reads(text), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "01",
            "-",
            "1.",
            ".5",
            "+1",
            "1e",
            "nul",
            "nulll",
            "truex",
            "[1,]",
            "[,]",
            "[1 2]",
            "{a: 1}",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{'a':1}",
            "\"a",
            "\"\n\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\\ude01\\ud83d\"",
            "\"\\u12\"",
            "1 2",
            "{} x",
            "NaN",
            "Infinity",
            "1x",
            "\"\\U0041\"",
            "{\"a\":1 \"b\":2}",
            "// c\n1",
            "]",
            "[}",
        ] {
            assert!(!reads(text), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text}");
        }
        assert!(!reads(&"[".repeat(100_000)));
        assert!(Reader::new(b"\xff").is_err());
    }

    #[test]
    fn texts_are_unescaped() {
        let mut reader = Reader::new(br#" "a\"\\\/\b\f\n\r\t\u0041\ud83d\ude01z" "#).unwrap();
        assert_eq!(reader.text().unwrap(), "a\"\\/\u{8}\u{c}\n\r\tA😁z");
        assert!(matches!(Reader::new(b"\"plain\"").unwrap().text(), Ok(Cow::Borrowed("plain"))));
    }
}
