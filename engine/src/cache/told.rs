//! What the gateway tells of its cache (`Cache-Status`, RFC 9211).

use super::freshness::Freshness;
use crate::message::fields::is_tchar;
use crate::message::write;

/// Why a request was forwarded (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// The cache does not handle such requests.
    Bypass,
    Method,
    UriMiss,
    VaryMiss,
    /// What is stored would do, but for what the request says.
    Request,
    Stale,
    /// Only a part is asked for, and not even the whole is stored.
    Partial,
}

impl Forwarded {
    fn text(self) -> &'static [u8] {
        match self {
            Forwarded::Bypass => b"bypass",
            Forwarded::Method => b"method",
            Forwarded::UriMiss => b"uri-miss",
            Forwarded::VaryMiss => b"vary-miss",
            Forwarded::Request => b"request",
            Forwarded::Stale => b"stale",
            Forwarded::Partial => b"partial",
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// `None`: it was answered by what is stored.
    pub forwarded: Option<Forwarded>,
    /// What the upstream said, where that is not the answer's own status.
    pub status: Option<u16>,
    /// Seconds that the answer is still fresh for.
    pub ttl_s: Option<i64>,
    pub stored: bool,
    pub collapsed: bool,
}

impl Told {
    /// Answered by what is stored.
    pub fn hit(freshness: &Freshness, now_ms: u64) -> Told {
        Told { ttl_s: Some(freshness.left_s(now_ms)), ..Told::default() }
    }

    pub fn forwarded(why: Forwarded) -> Told {
        Told { forwarded: Some(why), ..Told::default() }
    }

    /// The member of the list for the cache of that name.
    pub fn write(&self, name: &[u8], out: &mut Vec<u8>) {
        // A token of structured fields, or a text (RFC 8941 §3.3).
        let starts = name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'*');
        if starts && name.iter().all(|byte| is_tchar(*byte) || matches!(byte, b':' | b'/')) {
            out.extend_from_slice(name);
        } else {
            out.push(b'"');
            for byte in name.iter().filter(|byte| matches!(byte, 0x20..=0x7e)) {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(*byte);
            }
            out.push(b'"');
        }
        match self.forwarded {
            None => out.extend_from_slice(b"; hit"),
            Some(why) => {
                out.extend_from_slice(b"; fwd=");
                out.extend_from_slice(why.text());
            }
        }
        if let Some(status) = self.status {
            out.extend_from_slice(b"; fwd-status=");
            write::decimal(out, u64::from(status));
        }
        if let Some(ttl_s) = self.ttl_s {
            out.extend_from_slice(b"; ttl=");
            if ttl_s < 0 {
                out.push(b'-');
            }
            // RFC 8941 §3.3.1: at most 15 digits.
            write::decimal(out, ttl_s.unsigned_abs().min(999_999_999_999_999));
        }
        if self.stored {
            out.extend_from_slice(b"; stored");
        }
        if self.collapsed {
            out.extend_from_slice(b"; collapsed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(told: Told, name: &str) -> String {
        let mut out = Vec::new();
        told.write(name.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn is_a_list_of_structured_fields() {
        let hit = Told { ttl_s: Some(-3), collapsed: true, ..Told::default() };
        assert_eq!(text(hit, "sluice"), "sluice; hit; ttl=-3; collapsed");
        let miss = Told { stored: true, status: Some(304), ..Told::forwarded(Forwarded::Stale) };
        assert_eq!(text(miss, "a.b-1"), "a.b-1; fwd=stale; fwd-status=304; stored");
        assert_eq!(text(Told::default(), "1 \"a\\"), "\"1 \\\"a\\\\\"; hit");
        let forever = Told { ttl_s: Some(i64::MAX), ..Told::default() };
        assert_eq!(text(forever, "s"), "s; hit; ttl=999999999999999");
        for told in [hit, miss, forever] {
            let list = text(told, "my node");
            sfv::Parser::new(&list).parse::<sfv::List>().unwrap();
        }
    }
}
