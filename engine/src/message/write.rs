//! Serialising heads and chunks into a byte vector, without `format!` and without surprises.
//!
//! Nothing here validates: every name and value comes from a parsed head or from our own text.

use super::fields::Name;

pub const CRLF: &[u8] = b"\r\n";
/// The last chunk without trailer fields.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// The last chunk's size line; trailer lines and [`CRLF`] follow.
pub const LAST_CHUNK_SIZE: &[u8] = b"0\r\n";
/// Longest chunk header: 16 hex digits and CRLF.
pub const MAX_CHUNK_HEADER: usize = 18;

/// Whether a field belongs to one connection and is never forwarded (RFC 9110 §7.6.1).
/// `Transfer-Encoding` is among them, `Content-Length` is not: a forwarder writes framing itself
/// and copies a length only with the same length of body.
#[inline]
pub fn hop_by_hop(name: Name) -> bool {
    matches!(
        name,
        Name::Connection
            | Name::KeepAlive
            | Name::ProxyConnection
            | Name::Te
            | Name::Trailer
            | Name::TransferEncoding
            | Name::Upgrade
            | Name::Http2Settings
            | Name::ProxyAuthenticate
            | Name::ProxyAuthorization
    )
}

/// `METHOD target HTTP/1.1 CRLF`. The target is the parts one after the other: path, `?`, query.
#[inline]
pub fn request_line(out: &mut Vec<u8>, method: &[u8], path: &[u8], query: Option<&[u8]>) {
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(if path.is_empty() { b"/" } else { path });
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// `HTTP/1.1 status phrase CRLF`, with the phrase of the registry.
#[inline]
pub fn status_line(out: &mut Vec<u8>, status: u16) {
    if status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(phrase(status).as_bytes());
    out.extend_from_slice(CRLF);
}

/// `HTTP/1.1 status CRLF`, without a phrase.
#[inline]
pub fn bare_status_line(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.extend_from_slice(b" \r\n");
}

/// `name: value CRLF`.
#[inline]
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(CRLF);
}

/// `name: number CRLF`.
#[inline]
pub fn field_decimal(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    decimal(out, value);
    out.extend_from_slice(CRLF);
}

/// A number in decimal digits.
#[inline]
pub fn decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (value % 10) as u8;
        value /= 10;
        used += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - used..).unwrap_or_default());
}

/// Writes the header of a chunk of `len` bytes into `space` and returns the part used. A `len` of
/// 0 would be the last chunk; callers skip empty data.
#[inline]
pub fn chunk_header(space: &mut [u8; MAX_CHUNK_HEADER], len: usize) -> &[u8] {
    let mut value = len as u64;
    let mut start = MAX_CHUNK_HEADER - 2;
    space[16] = b'\r';
    space[17] = b'\n';
    for slot in space.iter_mut().take(16).rev() {
        *slot = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
        start -= 1;
        if value == 0 {
            break;
        }
    }
    space.get(start..).unwrap_or_default()
}

/// Appends a chunk of `data`: header, data, CRLF. Nothing for empty data.
pub fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    out.reserve(data.len() + MAX_CHUNK_HEADER + 2);
    out.extend_from_slice(chunk_header(&mut [0; MAX_CHUNK_HEADER], data.len()));
    out.extend_from_slice(data);
    out.extend_from_slice(CRLF);
}

/// Length of an HTTP date.
pub const DATE_LEN: usize = 29;

/// The IMF-fixdate (RFC 9110 §5.6.7) of `unix_s` seconds since 1970, such as
/// `Sun, 06 Nov 1994 08:49:37 GMT`. It changes once a second: callers keep it. Years beyond 9999
/// do not exist in the format and are shown as 9999.
pub fn http_date(unix_s: u64) -> [u8; DATE_LEN] {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    const LAST: u64 = 253_402_300_799; // 9999-12-31T23:59:59Z
    let unix_s = unix_s.min(LAST);
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = civil(days);
    let mut date = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let mut put = |at: usize, text: &[u8]| {
        for (slot, &byte) in date.iter_mut().skip(at).zip(text) {
            *slot = byte;
        }
    };
    let two = |n: u64| [b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8];
    put(0, DAYS[(days % 7) as usize]);
    put(5, &two(day));
    put(8, MONTHS[(month as usize - 1) % 12]);
    put(12, &two(year / 100));
    put(14, &two(year % 100));
    put(17, &two(second / 3600));
    put(20, &two(second / 60 % 60));
    put(23, &two(second % 60));
    date
}

/// Year, month (1 to 12) and day (1 to 31) of a day since 1970, in the Gregorian calendar: years
/// are counted from 1 March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // From 0000-03-01.
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// The registered reason phrase (RFC 9110 §15 and the registry); empty when there is none.
pub fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(unix_s: u64) -> String {
        String::from_utf8(http_date(unix_s).to_vec()).unwrap()
    }

    #[test]
    fn dates_follow_the_calendar() {
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(date(1_709_251_199), "Thu, 29 Feb 2024 23:59:59 GMT");
        assert_eq!(date(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
        assert_eq!(date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn lines_are_written_as_the_grammar_says() {
        let mut out = Vec::new();
        request_line(&mut out, b"GET", b"", Some(b"q"));
        field(&mut out, b"A", b"b c");
        field_decimal(&mut out, b"Content-Length", 0);
        status_line(&mut out, 200);
        status_line(&mut out, 431);
        status_line(&mut out, 299);
        let text = "GET /?q HTTP/1.1\r\nA: b c\r\nContent-Length: 0\r\nHTTP/1.1 200 OK\r\n\
            HTTP/1.1 431 Request Header Fields Too Large\r\nHTTP/1.1 299 \r\n";
        assert_eq!(out.escape_ascii().to_string(), text.escape_default().to_string());
    }

    #[test]
    fn empty_data_makes_no_chunk() {
        let mut out = Vec::new();
        chunk(&mut out, b"");
        chunk(&mut out, b"0123456789abcdef");
        assert_eq!(out, b"10\r\n0123456789abcdef\r\n");
    }
}
