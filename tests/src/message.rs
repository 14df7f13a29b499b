//! Strict, independent parsing of HTTP/1 heads (RFC 9112): what is not exactly right is an error.

/// A request or response head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The first line without its CRLF.
    pub start: String,
    /// In order; names as sent.
    pub fields: Vec<(String, String)>,
    /// The bytes as received, through the empty line.
    pub raw: Vec<u8>,
}

/// How the end of a body was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body by rule: HEAD, 1xx, 204, 304.
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// A response, read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The 1xx heads before it.
    pub interim: Vec<Head>,
}

impl Head {
    /// Parses `raw`, which ends in the empty line.
    pub fn parse(raw: Vec<u8>) -> Result<Head, String> {
        let text = raw.strip_suffix(b"\r\n\r\n").ok_or("no empty line at the end")?;
        let mut lines = split_crlf(text)?.into_iter();
        let start = lines.next().ok_or("no start line")?;
        if start.iter().any(|&b| b < 0x20 || b == 0x7f) {
            return Err(format!("control byte in the start line {:?}", crate::wire::lossy(start)));
        }
        let start = String::from_utf8(start.to_vec()).map_err(|_| "start line is not UTF-8")?;
        let fields = lines.map(Head::field).collect::<Result<_, _>>()?;
        Ok(Head { start, fields, raw })
    }

    /// As received, for messages.
    pub fn raw_text(&self) -> String {
        crate::wire::lossy(&self.raw)
    }

    /// Parses one field line.
    pub fn field(line: &[u8]) -> Result<(String, String), String> {
        let shown = || crate::wire::lossy(line);
        let colon = line
            .iter()
            .position(|&b| b == b':')
            .ok_or_else(|| format!("field line without a colon: {:?}", shown()))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|&b| is_token_byte(b)) {
            return Err(format!("field name is not a token: {:?}", shown()));
        }
        if value.iter().any(|&b| (b < 0x20 && b != b'\t') || b == 0x7f) {
            return Err(format!("control byte in a field value: {:?}", shown()));
        }
        Ok((
            String::from_utf8_lossy(name).into_owned(),
            String::from_utf8_lossy(value).into_owned(),
        ))
    }

    /// Every value of the field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }

    /// The value of a field that must not repeat.
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} is there {} times in {:?}", all.len(), self.fields);
        all.first().copied()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// Whether the comma-separated field holds `token`, in any case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .iter()
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// The words of the start line.
    pub fn words(&self) -> Vec<&str> {
        self.start.splitn(3, ' ').collect()
    }

    /// The status of a response's start line.
    pub fn status(&self) -> Result<u16, String> {
        let words = self.words();
        let version = words.first().copied().unwrap_or_default();
        if version != "HTTP/1.1" && version != "HTTP/1.0" {
            return Err(format!("not a status line: {:?}", self.start));
        }
        match words.get(1) {
            Some(code) if code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit()) => {
                code.parse().map_err(|_| format!("status {code:?}"))
            }
            _ => Err(format!("not a status line: {:?}", self.start)),
        }
    }

    /// The framing that this head announces, apart from what method and status rule out.
    /// `None`: neither field is there. Both, or either twice, is an error (RFC 9112 §6.3).
    pub fn announced(&self) -> Result<Option<Framing>, String> {
        let (lengths, codings) = (self.all("content-length"), self.all("transfer-encoding"));
        match (&lengths[..], &codings[..]) {
            ([], []) => Ok(None),
            ([length], []) if length.bytes().all(|b| b.is_ascii_digit()) => length
                .parse()
                .map(|n| Some(Framing::Length(n)))
                .map_err(|_| format!("content-length {length:?}")),
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
            _ => Err(format!("framing fields {lengths:?} and {codings:?}")),
        }
    }
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a field that must not repeat.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    /// Whether the sender says that it will close.
    pub fn says_close(&self) -> bool {
        self.head.lists("connection", "close")
    }

    /// Checks that this is one of the gateway's own answers as documented: problem+json with its
    /// four members, the request id in body and field, nothing else. Returns the reason, the last
    /// path segment of `type`.
    pub fn problem(&self) -> Result<String, String> {
        let at = |what: String| format!("{what} in {} {:?}", self.head.start, self.text());
        if self.field("content-type") != Some("application/problem+json") {
            return Err(at(format!("content-type {:?}", self.field("content-type"))));
        }
        let json: serde_json::Value =
            serde_json::from_slice(&self.body).map_err(|e| at(format!("{e}")))?;
        let members = json.as_object().ok_or_else(|| at("no object".into()))?;
        for name in ["type", "title", "status", "request_id"] {
            if !members.contains_key(name) {
                return Err(at(format!("no {name:?}")));
            }
        }
        if json["status"].as_u64() != Some(u64::from(self.status)) {
            return Err(at("another status than the status line".into()));
        }
        let id = self.field("x-request-id").ok_or_else(|| at("no X-Request-Id".into()))?;
        if id.is_empty() || json["request_id"].as_str() != Some(id) {
            return Err(at(format!("another request id than {id:?}")));
        }
        let kind = json["type"].as_str().ok_or_else(|| at("type is no string".into()))?;
        Ok(kind.rsplit(['/', ':', '#']).next().unwrap_or_default().to_owned())
    }
}

/// Every value of `name` among `fields`.
pub fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
}

/// RFC 9112 §7.1: hexadecimal digits only. The gateway never forwards chunk extensions, so a
/// fixture treats them as an error.
pub fn parse_chunk_size(line: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(line).map_err(|_| format!("chunk size {line:?}"))?;
    if text.is_empty() || text.len() > 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!("chunk size {text:?}"));
    }
    u64::from_str_radix(text, 16).map_err(|_| format!("chunk size {text:?}"))
}

fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// Splits at CRLF; a CR or LF on its own is an error.
fn split_crlf(text: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = crate::wire::find(rest, b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    match lines.iter().find(|line| line.contains(&b'\r') || line.contains(&b'\n')) {
        Some(line) => Err(format!("bare CR or LF in {:?}", crate::wire::lossy(line))),
        None => Ok(lines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, String> {
        Head::parse(text.as_bytes().to_vec())
    }

    #[test]
    fn a_good_head_parses() {
        let head = head("HTTP/1.1 200 OK\r\nA: 1\r\na:2 \r\nContent-Length: 5\r\n\r\n").unwrap();
        assert_eq!(head.status(), Ok(200));
        assert_eq!(head.all("A"), ["1", "2"]);
        assert_eq!(head.announced(), Ok(Some(Framing::Length(5))));
    }

    #[test]
    fn loose_heads_do_not() {
        for text in [
            "HTTP/1.1 200 OK\nA: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\n A: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: \u{1}\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: 1\r\n\r\n",
        ] {
            assert!(head(text).is_err(), "{text:?}");
        }
        assert!(head("HTTP/1.1 20 OK\r\n\r\n").unwrap().status().is_err());
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Content-Length: +1",
            "Transfer-Encoding: gzip",
        ] {
            let head = head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n")).unwrap();
            assert!(head.announced().is_err(), "{fields:?}");
        }
        for size in ["", "+5", "5;a", " 5", "0x5", "11111111111111111"] {
            assert!(parse_chunk_size(size.as_bytes()).is_err(), "{size:?}");
        }
        assert_eq!(parse_chunk_size(b"1f"), Ok(31));
    }
}
