//! A stream of JSON values, cut into its values: an array, or values one behind the other (NDJSON, or with
//! any white space between them). What a value is, is looked at elsewhere.

/// Cuts what comes piece by piece.
#[derive(Debug)]
pub struct Splitter {
    buffer: Vec<u8>,
    /// Bytes of the buffer that have been looked at.
    scanned: usize,
    /// Where the value begins that has begun.
    start: Option<usize>,
    depth: u32,
    in_text: bool,
    escaped: bool,
    form: Form,
    /// Largest value.
    most: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Open,
    /// Values one behind the other.
    Loose,
    /// In an array, where a value, a comma or the end may follow.
    ArrayFirst,
    ArrayValue,
    ArrayComma,
    Over,
}

/// Why a stream cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncut {
    TooLarge,
    Malformed(&'static str),
}

impl Splitter {
    /// `most`: bytes of the largest value.
    pub fn new(most: usize) -> Splitter {
        Splitter {
            buffer: Vec::new(),
            scanned: 0,
            start: None,
            depth: 0,
            in_text: false,
            escaped: false,
            form: Form::Open,
            most,
        }
    }

    /// Takes the next piece, and hands out each value that is whole by now.
    ///
    /// # Errors
    /// What it breaks, or the first error of `each`.
    pub fn feed<E: From<Uncut>>(
        &mut self,
        data: &[u8],
        end: bool,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.buffer.extend_from_slice(data);
        let mut from = 0;
        while let Some(&byte) = self.buffer.get(self.scanned) {
            let at = self.scanned;
            if let Some(start) = self.start {
                if at - start > self.most {
                    return Err(Uncut::TooLarge.into());
                }
                if self.in_text {
                    self.scanned += 1;
                    match byte {
                        _ if self.escaped => self.escaped = false,
                        b'\\' => self.escaped = true,
                        b'"' => {
                            self.in_text = false;
                            if self.depth == 0 {
                                each(self.buffer.get(start..at + 1).unwrap_or_default())?;
                                self.value_ended();
                                from = at + 1;
                            }
                        }
                        _ => {}
                    }
                    continue;
                }
                match byte {
                    b'"' => self.in_text = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' if self.depth > 0 => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            self.scanned += 1;
                            each(self.buffer.get(start..at + 1).unwrap_or_default())?;
                            self.value_ended();
                            from = at + 1;
                            continue;
                        }
                    }
                    // A number or word ends where something else begins.
                    b' ' | b'\t' | b'\n' | b'\r' | b',' | b']' | b'}' if self.depth == 0 => {
                        each(self.buffer.get(start..at).unwrap_or_default())?;
                        self.value_ended();
                        from = at;
                        continue;
                    }
                    _ => {}
                }
                self.scanned += 1;
                continue;
            }
            from = at;
            match (self.form, byte) {
                (_, b' ' | b'\t' | b'\n' | b'\r') => self.scanned += 1,
                (Form::Over, _) => {
                    return Err(Uncut::Malformed("something is behind the array").into());
                }
                (Form::Open, b'[') => {
                    self.form = Form::ArrayFirst;
                    self.scanned += 1;
                }
                (Form::ArrayFirst | Form::ArrayComma, b']') => {
                    self.form = Form::Over;
                    self.scanned += 1;
                }
                (Form::ArrayComma, b',') => {
                    self.form = Form::ArrayValue;
                    self.scanned += 1;
                }
                (Form::ArrayComma, _) => {
                    return Err(Uncut::Malformed("expected `,` or `]`").into());
                }
                (_, b',' | b']' | b'}' | b':') => {
                    return Err(Uncut::Malformed("expected a value").into());
                }
                (form, _) => {
                    if form == Form::Open {
                        self.form = Form::Loose;
                    }
                    self.start = Some(at);
                }
            }
        }
        if end {
            match (self.start, self.form) {
                (Some(start), Form::Loose) if self.depth == 0 && !self.in_text => {
                    each(self.buffer.get(start..).unwrap_or_default())?;
                    self.value_ended();
                }
                (Some(_), _) => return Err(Uncut::Malformed("a value does not end").into()),
                (None, Form::Open | Form::Loose | Form::Over) => {}
                (None, _) => return Err(Uncut::Malformed("the array does not end").into()),
            }
        }
        // What was handed out need not be kept.
        let keep = self.start.unwrap_or(from.max(self.scanned.min(self.buffer.len())));
        self.buffer.drain(..keep.min(self.buffer.len()));
        self.scanned -= keep;
        self.start = self.start.map(|start| start - keep);
        Ok(())
    }

    fn value_ended(&mut self) {
        self.start = None;
        if self.form != Form::Loose {
            self.form = Form::ArrayComma;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(pieces: &[&[u8]], most: usize) -> Result<Vec<String>, Uncut> {
        let mut splitter = Splitter::new(most);
        let mut out = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            splitter.feed(piece, at + 1 == pieces.len(), |value| {
                out.push(String::from_utf8_lossy(value).into_owned());
                Ok::<(), Uncut>(())
            })?;
        }
        Ok(out)
    }

    #[test]
    fn arrays_and_lines_are_cut() {
        let all = |text: &str| cut(&[text.as_bytes()], 100).map(|list| list.join(" | "));
        for (text, expected) in [
            ("", ""),
            ("[]", ""),
            (" [ ] ", ""),
            (r#"[{"a":"]}\""},{}, [1] ]"#, r#"{"a":"]}\""} | {} | [1]"#),
            ("{\"a\":1}\n{\"b\":[2]}\n\n", "{\"a\":1} | {\"b\":[2]}"),
            ("{}{}", "{} | {}"),
            ("1 2\n\"x y\" null", "1 | 2 | \"x y\" | null"),
            ("[1,2,\"a\"]", "1 | 2 | \"a\""),
            ("[{\"a\":1}]\n", "{\"a\":1}"),
        ] {
            assert_eq!(all(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["[1", "[1,]", "[,1]", "[1 2]", "[1] 2", "{", "\"x", "}", ",1", "{}]", "[1,"] {
            assert!(all(text).is_err(), "{text}");
        }
        assert_eq!(cut(&[b"[\"", &[b'x'; 200]], 100), Err(Uncut::TooLarge));
    }

    proptest! {
        #[test]
        fn where_the_pieces_are_does_not_matter(
            text in r#"(\[|)( |\n|,|\]|\{"a":"[\]x]"\}|1|"q\\""|\{\}|null){0,12}"#,
            cuts in proptest::collection::vec(0usize..60, 0..5),
        ) {
            let whole = cut(&[text.as_bytes()], 1000);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(text.len())).collect();
            cuts.sort_unstable();
            let (mut pieces, mut from) = (Vec::new(), 0);
            for at in cuts {
                pieces.push(&text.as_bytes()[from..at]);
                from = at;
            }
            pieces.push(&text.as_bytes()[from..]);
            prop_assert_eq!(cut(&pieces, 1000).ok(), whole.ok());
        }
    }
}
