//! Bodies that are records one after the other, changed while they stream: NDJSON (a JSON value on each
//! line) and server-sent events (WHATWG HTML §9.2.6: the `data` of each event). No more than one record is
//! held.

/// How records are told from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Lines,
    Events,
}

/// What becomes of one record. `None`: it goes.
pub type Change<'c, E> = &'c mut dyn FnMut(&[u8]) -> Result<Option<Vec<u8>>, E>;

/// Why records cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop<E> {
    /// One is longer than the bound.
    TooLong,
    Change(E),
}

/// Finds the records of a body in its pieces.
#[derive(Debug)]
pub struct Records {
    form: Form,
    /// Longest record in bytes.
    most: usize,
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    /// Whole lines of the event that is not whole yet, each with its length before it.
    event: Vec<u8>,
    lines: Vec<usize>,
}

impl Records {
    pub fn new(form: Form, most: usize) -> Records {
        let (line, event, lines) = Default::default();
        Records { form, most, line, after_return: false, event, lines }
    }

    /// Takes the next piece of the body and appends what becomes of the records that are whole by it.
    ///
    /// # Errors
    /// A record is too long, or `change` says so. Nothing may be taken after that.
    pub fn pass<E>(
        &mut self,
        data: &[u8],
        end: bool,
        change: Change<'_, E>,
        out: &mut Vec<u8>,
    ) -> Result<(), Stop<E>> {
        let mut rest = data;
        while let Some(first) = rest.first() {
            if std::mem::take(&mut self.after_return) && *first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(at) = self.line_end(rest) else {
                self.hold(rest)?;
                break;
            };
            self.hold(&rest[..at])?;
            self.after_return = rest[at] == b'\r';
            rest = &rest[at + 1..];
            let line = std::mem::take(&mut self.line);
            self.take_line(&line, change, out)?;
            // Its memory serves the next one.
            self.line = line;
            self.line.clear();
        }
        if end {
            // NDJSON need not end its last line. An event that no empty line ends is none (§9.2.6).
            let line = std::mem::take(&mut self.line);
            match self.form {
                Form::Lines if !line.is_empty() => self.take_line(&line, change, out)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn line_end(&self, data: &[u8]) -> Option<usize> {
        match self.form {
            Form::Lines => memchr::memchr(b'\n', data),
            Form::Events => memchr::memchr2(b'\n', b'\r', data),
        }
    }

    fn hold<E>(&mut self, data: &[u8]) -> Result<(), Stop<E>> {
        if self.line.len() + self.event.len() + data.len() > self.most {
            return Err(Stop::TooLong);
        }
        self.line.extend_from_slice(data);
        Ok(())
    }

    fn take_line<E>(
        &mut self,
        line: &[u8],
        change: Change<'_, E>,
        out: &mut Vec<u8>,
    ) -> Result<(), Stop<E>> {
        match self.form {
            Form::Lines => {
                let record = line.strip_suffix(b"\r").unwrap_or(line);
                if record.trim_ascii().is_empty() {
                    // Keeps a connection alive, perhaps.
                    out.push(b'\n');
                } else if let Some(changed) = change(record).map_err(Stop::Change)? {
                    out.extend_from_slice(&changed);
                    out.push(b'\n');
                }
                Ok(())
            }
            Form::Events if line.is_empty() => self.take_event(change, out),
            Form::Events => {
                self.event.extend_from_slice(line);
                self.lines.push(line.len());
                // Empty lines do not count towards the bound, but what is kept of each does.
                match self.lines.len() * size_of::<usize>() <= self.most.max(1024) {
                    true => Ok(()),
                    false => Err(Stop::TooLong),
                }
            }
        }
    }

    fn take_event<E>(&mut self, change: Change<'_, E>, out: &mut Vec<u8>) -> Result<(), Stop<E>> {
        let event = std::mem::take(&mut self.event);
        let lengths = std::mem::take(&mut self.lines);
        let mut rest = &event[..];
        let lines = lengths.iter().map(|length| {
            let (line, behind) = rest.split_at(*length);
            rest = behind;
            line
        });
        let lines: Vec<_> = lines.collect();
        let mut data: Option<Vec<u8>> = None;
        for line in lines.iter().filter_map(|line| value_of(line)) {
            match &mut data {
                None => data = Some(line.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(line);
                }
            }
        }
        let mut changed = match data.filter(|data| !data.is_empty()) {
            Some(data) => match change(&data).map_err(Stop::Change)? {
                Some(changed) => Some(changed),
                None => return Ok(()),
            },
            None => None,
        };
        for line in lines {
            match value_of(line) {
                Some(_) => {
                    // All of it at the first line's place.
                    for line in changed.take().iter().flat_map(|data| data.split(|b| *b == b'\n')) {
                        out.extend_from_slice(b"data: ");
                        out.extend_from_slice(line);
                        out.push(b'\n');
                    }
                }
                None => {
                    out.extend_from_slice(line);
                    out.push(b'\n');
                }
            }
        }
        out.push(b'\n');
        Ok(())
    }
}

/// What a line says of the event's data.
fn value_of(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        b"" => Some(b""),
        rest => {
            let value = rest.strip_prefix(b":")?;
            Some(value.strip_prefix(b" ").unwrap_or(value))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passed(form: Form, pieces: &[&[u8]]) -> Result<String, Stop<&'static str>> {
        let mut records = Records::new(form, 100);
        let mut out = Vec::new();
        let mut change = |record: &[u8]| match record {
            b"drop" => Ok(None),
            b"bad" => Err("bad"),
            record => Ok(Some([b"<", record, b">"].concat())),
        };
        for piece in pieces {
            records.pass(piece, false, &mut change, &mut out)?;
        }
        records.pass(b"", true, &mut change, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_line_is_a_record() {
        let lines = |text: &str| passed(Form::Lines, &[text.as_bytes()]);
        assert_eq!(lines("a\r\nb\n\ndrop\nc").unwrap(), "<a>\n<b>\n\n<c>\n");
        assert_eq!(lines("").unwrap(), "");
        assert_eq!(lines("a\nbad\nc"), Err(Stop::Change("bad")));
        assert_eq!(lines(&"x".repeat(101)), Err(Stop::TooLong));
        assert!(lines(&format!("{0}\n{0}\n", "x".repeat(100))).is_ok());
    }

    #[test]
    fn the_data_of_each_event_is_a_record() {
        let events = |text: &str| passed(Form::Events, &[text.as_bytes()]);
        assert_eq!(
            events("event: e\ndata: a\nid: 1\ndata:b\n\n").unwrap(),
            "event: e\ndata: <a\ndata: b>\nid: 1\n\n"
        );
        assert_eq!(events("data:  a\r\rdata: b\r\n\r\n").unwrap(), "data: < a>\n\ndata: <b>\n\n");
        assert_eq!(events(": ping\n\nretry: 5\n\n\n").unwrap(), ": ping\n\nretry: 5\n\n\n");
        assert_eq!(
            events("event: x\ndata: drop\n\ndata\ndata\n\n").unwrap(),
            "data: <\ndata: >\n\n"
        );
        // What no empty line ends is no event.
        assert_eq!(events("data: a\n\ndata: b\n").unwrap(), "data: <a>\n\n");
        assert_eq!(events(&"data: x\n".repeat(100)), Err(Stop::TooLong));
        assert_eq!(events("database: x\n\n").unwrap(), "database: x\n\n");
    }

    proptest! {
        #[test]
        fn however_it_is_cut_it_comes_to_the_same(
            text in "(data: ?[ab]{0,3}|id: 1|:|drop|[ab]{1,3}|)([\n\r]|\r\n|){0,30}",
            more in "((data: ?[ab]{0,3}|data|id: 1|)(\n|\r|\r\n)){0,12}",
            cuts in prop::collection::vec(0usize..80, 0..6),
            events in any::<bool>(),
        ) {
            let form = if events { Form::Events } else { Form::Lines };
            let text = text + &more;
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            let whole = passed(form, &[text.as_bytes()]);
            prop_assert_eq!(&passed(form, &pieces), &whole);
            prop_assert_eq!(&passed(form, &bytes), &whole);
        }
    }
}
