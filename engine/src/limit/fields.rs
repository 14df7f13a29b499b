//! What clients are told of limits: `RateLimit-Policy` and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers-10), the `X-RateLimit-*` that came before them, and the details
//! of a gRPC status.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use contract::record::Reason;
use contract::snapshot::LimitIndex;

use super::admit;
use super::policy::{Policies, Policy};
use crate::exchange::Request;
use crate::grpc;
use crate::local_reply;
use crate::message::{HeadWriter, write};

/// What a client is told of one policy: of its first window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub policy: LimitIndex,
    /// Which of its quotas holds.
    pub quota: u8,
    pub remaining: u64,
    /// Seconds, rounded up.
    pub reset_s: u64,
}

const POLICY: &str = "RateLimit-Policy";
const LIMIT: &str = "RateLimit";
const LEGACY: [&str; 3] = ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"];

/// Whether any of these is told in standard fields, and in those of old.
pub fn kinds(policies: &Policies, shown: &[Shown]) -> (bool, bool) {
    let known = |one: &Shown| policies.get(one.policy).map(|policy| policy.fields);
    let fields = shown.iter().filter_map(known);
    fields.fold((false, false), |(standard, legacy), fields| {
        (standard | fields.standard, legacy | fields.legacy)
    })
}

/// Whether an answer's field says what the gateway says itself.
pub fn is_ours(name: &[u8], standard: bool, legacy: bool) -> bool {
    let same = |own: &str| own.as_bytes().eq_ignore_ascii_case(name);
    (standard && (same(LIMIT) || same(POLICY))) || (legacy && LEGACY.iter().any(|own| same(own)))
}

/// Writes the fields of an answer.
#[inline]
pub fn write(out: &mut HeadWriter<'_>, policies: &Policies, shown: &[Shown]) {
    let (standard, legacy) = kinds(policies, shown);
    if standard {
        out.field_of(POLICY.as_bytes(), |out| write_policies(out, policies, shown));
        out.field_of(LIMIT.as_bytes(), |out| write_limits(out, policies, shown));
    }
    if legacy && let Some(values) = least(policies, shown) {
        for (name, value) in LEGACY.iter().zip(values) {
            out.field_decimal(name.as_bytes(), value);
        }
    }
}

/// Adds the same to what an answer of ours says.
pub fn tell(request: &mut Request) {
    let (policies, shown) = admit::shown(request);
    let (standard, legacy) = kinds(policies, shown);
    let mut own: Vec<(&'static str, Vec<u8>)> = Vec::new();
    if standard {
        let (mut quotas, mut left) = (Vec::with_capacity(64), Vec::with_capacity(64));
        write_policies(&mut quotas, policies, shown);
        write_limits(&mut left, policies, shown);
        own.extend([(POLICY, quotas), (LIMIT, left)]);
    }
    if legacy && let Some(values) = least(policies, shown) {
        let text = values.map(|value| value.to_string().into_bytes());
        own.extend(LEGACY.into_iter().zip(text));
    }
    request.answer_fields.append(&mut own);
}

/// Those that are told in standard fields, one behind the other.
fn list(
    out: &mut Vec<u8>,
    policies: &Policies,
    shown: &[Shown],
    mut write: impl FnMut(&mut Vec<u8>, &Policy, &Shown),
) {
    let mut first = true;
    for one in shown {
        let Some(policy) = policies.get(one.policy).filter(|policy| policy.fields.standard) else {
            continue;
        };
        if !std::mem::take(&mut first) {
            out.extend_from_slice(b", ");
        }
        write(out, policy, one);
    }
}

fn write_policies(out: &mut Vec<u8>, policies: &Policies, shown: &[Shown]) {
    list(out, policies, shown, |out, policy, one| {
        out.extend_from_slice(&policy.quota(one.quota).told);
    });
}

fn write_limits(out: &mut Vec<u8>, policies: &Policies, shown: &[Shown]) {
    list(out, policies, shown, |out, policy, one| {
        out.extend_from_slice(policy.quoted.as_bytes());
        out.extend_from_slice(b";r=");
        write::decimal(out, one.remaining);
        out.extend_from_slice(b";t=");
        write::decimal(out, one.reset_s);
    });
}

/// Limit, remaining and seconds to the reset of the policy that has the least left: there is only one of
/// each of the fields of old.
fn least(policies: &Policies, shown: &[Shown]) -> Option<[u64; 3]> {
    let told = |one: &&Shown| policies.get(one.policy).is_some_and(|policy| policy.fields.legacy);
    let least = shown.iter().filter(told).min_by_key(|one| one.remaining)?;
    let quota = policies.get(least.policy)?.quota(least.quota);
    Some([quota.windows.first()?.limit, least.remaining, least.reset_s])
}

/// Tells the client of a call when to try again: `google.rpc.RetryInfo` in the details of the status, and
/// gRFC A6's pushback, in milliseconds.
pub fn explain(request: &mut Request, wait_ms: u64) {
    if request.answer_kind().is_none() {
        return;
    }
    let code = grpc::status_code(429, Reason::RateLimited);
    let details = details(code, local_reply::title(Reason::RateLimited), wait_ms);
    // gRPC's binary fields are base64, best without padding (PROTOCOL-HTTP2.md).
    let details = STANDARD_NO_PAD.encode(details).into_bytes();
    let pushback = wait_ms.to_string().into_bytes();
    request.answer_fields.push(("grpc-status-details-bin", details));
    request.answer_fields.push(("grpc-retry-pushback-ms", pushback));
}

/// A `google.rpc.Status` with a `google.rpc.RetryInfo`, in protobuf.
fn details(code: u8, message: &str, wait_ms: u64) -> Vec<u8> {
    // google.protobuf.Duration: seconds = 1, nanos = 2.
    let mut delay = Vec::new();
    number(&mut delay, 1, wait_ms / 1_000);
    number(&mut delay, 2, wait_ms % 1_000 * 1_000_000);
    let mut info = Vec::new();
    bytes(&mut info, 1, &delay);
    // google.protobuf.Any: type_url = 1, value = 2.
    let mut any = Vec::new();
    bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
    bytes(&mut any, 2, &info);
    let mut status = Vec::new();
    number(&mut status, 1, code.into());
    bytes(&mut status, 2, message.as_bytes());
    bytes(&mut status, 3, &any);
    status
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// 0 is what a field is that is not there.
fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value > 0 {
        out.push(field << 3);
        varint(out, value);
    }
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use contract::snapshot::{LimitFields, LimitPolicy, LimitSpan, Limits};

    use super::*;
    use crate::message::Dialect;
    use crate::testing::limit_policy;

    fn policies() -> Policies {
        let policy = |name: &str, limit, ms, standard, legacy| LimitPolicy {
            fields: LimitFields { standard, legacy },
            ..limit_policy(name, limit, LimitSpan::Sliding(ms))
        };
        let all = vec![
            policy("gold", 100, 60_000, true, true),
            policy("burst", 7, 250, true, false),
            policy("old", 9, 1_000, false, true),
        ];
        Policies::build(&Limits { policies: all, everywhere: vec![] }).unwrap()
    }

    fn shown(policy: u32, remaining: u64, reset_s: u64) -> Shown {
        Shown { policy, quota: 0, remaining, reset_s }
    }

    fn written(shown: &[Shown]) -> String {
        let mut out = Vec::new();
        write(&mut HeadWriter::new(&mut out, Dialect::Http1), &policies(), shown);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn answers_tell_of_each_policy() {
        assert_eq!(written(&[]), "");
        assert_eq!(
            written(&[shown(0, 98, 60), shown(1, 0, 1), shown(2, 5, 1)]),
            "RateLimit-Policy: \"gold\";q=100;w=60, \"burst\";q=7\r\n\
             RateLimit: \"gold\";r=98;t=60, \"burst\";r=0;t=1\r\n\
             X-RateLimit-Limit: 9\r\n\
             X-RateLimit-Remaining: 5\r\n\
             X-RateLimit-Reset: 1\r\n"
        );
        assert_eq!(
            written(&[shown(1, 3, 1)]),
            "RateLimit-Policy: \"burst\";q=7\r\nRateLimit: \"burst\";r=3;t=1\r\n"
        );
        assert_eq!(
            written(&[shown(2, 8, 1)]),
            "X-RateLimit-Limit: 9\r\nX-RateLimit-Remaining: 8\r\nX-RateLimit-Reset: 1\r\n"
        );
    }

    #[test]
    fn the_lists_are_structured_fields() {
        use sfv::{List, Parser};
        let text = written(&[shown(0, 98, 60), shown(1, 0, 1)]);
        for line in text.lines().filter(|line| line.starts_with("RateLimit")) {
            let (_, value) = line.split_once(": ").unwrap();
            let list = Parser::new(value).parse::<List>().unwrap();
            assert_eq!(list.len(), 2, "{line}");
        }
    }

    #[test]
    fn upstreams_do_not_speak_of_what_the_gateway_tells() {
        assert!(is_ours(b"ratelimit", true, false) && is_ours(b"RateLimit-Policy", true, false));
        assert!(!is_ours(b"ratelimit", false, true) && !is_ours(b"x-ratelimit-limit", true, false));
        assert!(is_ours(b"x-ratelimit-reset", false, true) && !is_ours(b"x-rate", true, true));
    }

    /// The fields of a message: numbers, and bytes.
    fn read(mut bytes: &[u8]) -> Vec<(u8, u64, Vec<u8>)> {
        let varint = |bytes: &mut &[u8]| {
            let (mut value, mut shift) = (0u64, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        };
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let value = varint(&mut bytes);
            match tag & 7 {
                0 => fields.push(((tag >> 3) as u8, value, vec![])),
                2 => {
                    let (own, rest) = bytes.split_at(value as usize);
                    fields.push(((tag >> 3) as u8, value, own.to_vec()));
                    bytes = rest;
                }
                other => panic!("wire type {other}"),
            }
        }
        fields
    }

    #[test]
    fn calls_are_told_when_to_try_again() {
        for (wait_ms, delay) in [
            (12_345, vec![(1, 12, vec![]), (2, 345_000_000, vec![])]),
            (300_000, vec![(1, 300, vec![])]),
            (1, vec![(2, 1_000_000, vec![])]),
        ] {
            let status = read(&details(8, "Too many", wait_ms));
            assert_eq!(status[0], (1, 8, vec![]));
            assert_eq!(status[1], (2, 8, b"Too many".to_vec()));
            let any = read(&status[2].2);
            assert_eq!((status[2].0, any[0].0, any[1].0), (3, 1, 2));
            assert_eq!(any[0].2, b"type.googleapis.com/google.rpc.RetryInfo");
            let info = read(&any[1].2);
            assert_eq!((info.len(), info[0].0), (1, 1));
            assert_eq!(read(&info[0].2), delay);
        }
    }
}
