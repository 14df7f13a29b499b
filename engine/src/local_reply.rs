//! Every answer the gateway gives itself: one constant body per reason (RFC 9457 problem details).
//! Nothing of the request is in it but, where it is not valid, which rule it breaks and where.

use contract::record::Reason;

use crate::grpc;
use crate::grpc_web;
use crate::message::{Dialect, HeadWriter, Refusal, write};
use crate::validate::Fault;

/// An answer of ours. The only way a request ends that no upstream answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalReply {
    pub status: u16,
    pub reason: Reason,
    /// The connection cannot carry another request.
    pub close: bool,
    /// A field that explains the status: `Allow` (405, `OPTIONS *`), `Sec-WebSocket-Version` (426).
    pub field: Option<(&'static str, Vec<u8>)>,
    /// In place of the problem document: what the operator has chosen.
    pub text: Option<Box<Text>>,
    /// What is wrong with the request, in the problem document.
    pub faults: Vec<Fault>,
}

/// The body of an answer that the operator has chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub content_type: String,
    pub body: String,
}

impl LocalReply {
    pub fn new(status: u16, reason: Reason) -> LocalReply {
        LocalReply { status, reason, close: false, field: None, text: None, faults: Vec::new() }
    }

    /// The same with the operator's status and body.
    pub fn with_text(self, status: u16, content_type: &str, body: &str) -> LocalReply {
        let text = Text { content_type: content_type.into(), body: body.into() };
        LocalReply { status, text: Some(Box::new(text)), ..self }
    }

    /// The same, ending the connection.
    pub fn closing(status: u16, reason: Reason) -> LocalReply {
        LocalReply { close: true, ..LocalReply::new(status, reason) }
    }

    /// For a body that is not what was signed. The signature itself is good, so no other credential
    /// would help (RFC 9110 §15.5.2): the message is at odds with itself, which is a 400, as for the
    /// problem type "digest-mismatching-values" (draft-ietf-httpapi-digest-fields-problem-types).
    pub fn wrong_content() -> LocalReply {
        LocalReply::closing(400, Reason::DigestMismatch)
    }

    pub fn method_not_allowed(allow: Vec<u8>) -> LocalReply {
        LocalReply {
            field: Some(("Allow", allow)),
            ..LocalReply::new(405, Reason::MethodNotAllowed)
        }
    }

    /// Appends the head and returns the body, which may be empty. A gRPC call is answered by a
    /// head alone, in which the status stands that its client looks for ("Trailers-Only"); gRPC-Web has
    /// it in the body as well.
    pub fn write(&self, out: &mut Vec<u8>, dialect: Dialect, head: &ReplyHead<'_>) -> Vec<u8> {
        let out = &mut HeadWriter::new(out, dialect);
        let call = head.grpc.is_some();
        out.status(if call { 200 } else { self.status }, b"");
        out.field(b"Date", head.date);
        if !head.request_id.is_empty() {
            out.field(b"X-Request-Id", head.request_id);
        }
        if let Some((name, value)) = &self.field {
            out.field(name.as_bytes(), value);
        }
        for (name, value) in head.fields {
            out.field(name.as_bytes(), value);
        }
        if head.close {
            out.field(b"Connection", b"close");
        }
        let mut body = Vec::new();
        if let Some(kind) = head.grpc {
            out.field(b"Content-Type", kind.content_type());
            let code = grpc::status_code(self.status, self.reason);
            let mut message = Vec::new();
            grpc::write_message(&mut message, title(self.reason));
            out.field_decimal(b"grpc-status", code.into());
            out.field(b"grpc-message", &message);
            // Some clients of gRPC-Web look for the status only there.
            body = grpc_web::status_body(kind, code, &message);
            if dialect == Dialect::Http1 || !body.is_empty() {
                out.field_decimal(b"Content-Length", body.len() as u64);
            }
        } else if matches!(self.status, 204 | 304) {
            // RFC 9110 §6.4.1: these have no body, whatever was asked for.
        } else if let Some(text) = &self.text {
            body.extend_from_slice(text.body.as_bytes());
            if !text.content_type.is_empty() {
                out.field(b"Content-Type", text.content_type.as_bytes());
            }
            out.field_decimal(b"Content-Length", body.len() as u64);
        } else {
            body.reserve(256);
            self.body(&mut body, head.request_id);
            out.field(b"Content-Type", b"application/problem+json");
            out.field_decimal(b"Content-Length", body.len() as u64);
        }
        out.end();
        if !head.with_body {
            body.clear();
        }
        body
    }

    fn body(&self, out: &mut Vec<u8>, request_id: &[u8]) {
        out.extend_from_slice(b"{\"type\":\"urn:sluice:problem:");
        out.extend_from_slice(self.reason.name().as_bytes());
        out.extend_from_slice(b"\",\"title\":\"");
        out.extend_from_slice(title(self.reason).as_bytes());
        out.extend_from_slice(b"\",\"status\":");
        write::decimal(out, u64::from(self.status));
        if !request_id.is_empty() {
            // Only characters that JSON strings hold as they are (see `RequestId`).
            out.extend_from_slice(b",\"request_id\":\"");
            out.extend_from_slice(request_id);
            out.push(b'"');
        }
        if !self.faults.is_empty() {
            out.extend_from_slice(b",\"errors\":");
            // A list of texts is always JSON.
            let _ = serde_json::to_writer(&mut *out, &self.faults);
        }
        out.extend_from_slice(b"}\n");
    }
}

/// What the connection adds to an answer of ours.
pub struct ReplyHead<'a> {
    pub date: &'a [u8],
    pub request_id: &'a [u8],
    pub close: bool,
    pub with_body: bool,
    /// What the request's policies add.
    pub fields: &'a [(&'static str, Vec<u8>)],
    /// The request was a gRPC call.
    pub grpc: Option<grpc::Kind>,
}

impl From<Refusal> for LocalReply {
    fn from(refusal: Refusal) -> LocalReply {
        LocalReply {
            close: refusal.closes(),
            ..LocalReply::new(refusal.status(), refusal.reason())
        }
    }
}

/// What an answer of ours says to people.
pub fn title(reason: Reason) -> &'static str {
    match reason {
        Reason::None | Reason::Local => "Answered by the gateway",
        Reason::BadRequest => "The request is malformed",
        Reason::NoRoute => "No route matches this request",
        Reason::MethodNotAllowed => "The resource does not have this method",
        Reason::HeaderTimeout => "The request head took too long",
        Reason::BodyTimeout => "The request body came too slowly",
        Reason::HeadTooLarge => "The request head is too large",
        Reason::BodyTooLarge => "The request body is too large",
        Reason::UriTooLong => "The request target is too long",
        Reason::NotImplemented => "The request needs what this gateway does not implement",
        Reason::VersionNotSupported => "This HTTP version is not supported",
        Reason::ExpectationFailed => "The expectation cannot be met",
        Reason::NoTarget => "The service has no target",
        Reason::ConnectFailed => "The service cannot be reached",
        Reason::ConnectTimeout => "The service did not accept a connection in time",
        Reason::PoolExhausted => "The service has no connection free",
        Reason::UpstreamReset => "The service closed the connection before it answered",
        Reason::UpstreamInvalid => "The service gave an invalid answer",
        Reason::FirstByteTimeout => "The service did not answer in time",
        Reason::UpstreamTruncated => "The service's answer stopped in the middle",
        Reason::TotalTimeout => "The exchange took too long",
        Reason::ClientAborted => "The client went away",
        Reason::Loop => "The request has passed this gateway before",
        Reason::Draining => "The gateway is shutting down",
        Reason::Internal => "The gateway failed",
        Reason::Misdirected => "The connection's certificate does not stand for this host",
        Reason::TooEarly => "The request came too early; send it again after the handshake",
        Reason::UpstreamTls => "The service could not be reached securely",
        Reason::DeadlineExceeded => "The deadline of the request passed",
        Reason::UnsupportedMediaType => "The body is of a type that is not accepted here",
        Reason::Malformed => "The request is malformed",
        Reason::Overload => "The gateway has too much to do; try again",
        Reason::BreakerOpen => "The service fails too often and is left alone for a while",
        Reason::UpstreamBusy => "The service has as many requests as it can take",
        Reason::BelowFloor => "Too little of the service is up",
        Reason::TryTimeout => "The service did not answer in time",
        Reason::CredentialMissing => "A credential is needed",
        Reason::CredentialInvalid => "The credential is not valid",
        Reason::CredentialAmbiguous => "There is more than one credential",
        Reason::ScopeMissing => "The credential does not cover this",
        Reason::Forbidden => "The caller may not do this",
        Reason::AuthUnavailable => "The caller cannot be identified now; try again",
        Reason::AuthThrottled => "Too many failed attempts; wait before the next",
        Reason::AddressDenied => "This address is not served here",
        Reason::Preflight | Reason::Login => "Answered by the gateway",
        Reason::RateLimited => "Too many requests; wait before the next",
        Reason::LimitUnavailable => "The limit of requests cannot be checked now; try again",
        Reason::DigestMismatch => "The body does not have the digest that is signed",
        Reason::NotValid => "The request is not what is expected here",
        Reason::AnswerTooLarge => "The upstream's answer is too large",
        Reason::BodyUnusable => "The body is not what is expected here",
        Reason::AnswerUnusable => "The upstream's answer is not what was expected",
        Reason::ValueMissing => "The request lacks a value that is needed",
        Reason::CallFailed => "A part of the answer could not be had",
        Reason::OnlyIfCached => "Nothing stored answers this request",
        Reason::QueryRefused => "The query is not accepted here",
        Reason::Redirected => "The resource is elsewhere",
        Reason::Static => "Answered by the gateway",
        Reason::ExtensionRefused => "The request was refused",
        Reason::NoBinding => "There is nothing at this path",
        Reason::UpstreamUnsuited => "The service does not speak the protocol of this request",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: &LocalReply, close: bool, with_body: bool) -> String {
        let mut out = Vec::new();
        let head = ReplyHead {
            date: b"Sun, 06 Nov 1994 08:49:37 GMT",
            request_id: b"id-1",
            close,
            with_body,
            fields: &[],
            grpc: None,
        };
        let body = reply.write(&mut out, Dialect::Http1, &head);
        out.extend_from_slice(&body);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_reply_is_a_problem_document_of_constant_text() {
        let reply = text(&LocalReply::new(404, Reason::NoRoute), false, true);
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\nDate: Sun"));
        assert!(head.contains("Content-Type: application/problem+json"));
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        assert!(body.contains("\"type\":\"urn:sluice:problem:no_route\""));
        assert!(body.contains("\"request_id\":\"id-1\""));
        assert!(!head.contains("Connection"));
    }

    #[test]
    fn a_call_is_answered_by_a_status() {
        let mut out = Vec::new();
        let head = ReplyHead {
            date: b"now",
            request_id: b"",
            close: false,
            with_body: true,
            fields: &[],
            grpc: Some(grpc::Kind::Grpc),
        };
        let reply = LocalReply::new(503, Reason::NoTarget);
        assert!(reply.write(&mut out, Dialect::Http1, &head).is_empty());
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("grpc-status: 14\r\n"));
        assert!(text.contains("application/grpc\r\n") && text.contains("grpc-message: The"));
    }

    #[test]
    fn a_call_of_grpc_web_has_its_status_in_head_and_body() {
        for (kind, start) in [(grpc::Kind::Web, "\u{80}"), (grpc::Kind::WebText, "gAAAA")] {
            let mut out = Vec::new();
            let head = ReplyHead {
                date: b"now",
                request_id: b"",
                close: false,
                with_body: true,
                fields: &[],
                grpc: Some(kind),
            };
            let reply = LocalReply::new(503, Reason::NoTarget);
            let body = reply.write(&mut out, Dialect::Http1, &head);
            let text = String::from_utf8(out).unwrap();
            assert!(text.starts_with("HTTP/1.1 200") && text.contains("grpc-status: 14\r\n"));
            assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
            let body: String = body.into_iter().map(char::from).collect();
            assert!(body.starts_with(start), "{body}");
        }
    }

    #[test]
    fn the_operators_text_goes_in_place_of_the_problem() {
        let reply = LocalReply::new(503, Reason::BreakerOpen).with_text(200, "text/plain", "later");
        let whole = text(&reply, false, true);
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\n"), "{whole}");
        assert!(whole.contains("Content-Type: text/plain\r\nContent-Length: 5\r\n"), "{whole}");
        assert!(whole.ends_with("\r\n\r\nlater"));
        let empty = LocalReply::new(503, Reason::BreakerOpen).with_text(204, "text/plain", "later");
        assert!(text(&empty, false, true).ends_with("\r\n\r\n"));
    }

    #[test]
    fn head_gets_the_length_but_no_body_and_405_its_methods() {
        let reply = LocalReply::method_not_allowed(b"GET, HEAD".to_vec());
        let text = text(&reply, true, false);
        assert!(text.ends_with("\r\n\r\n"));
        assert!(text.contains("Allow: GET, HEAD\r\n") && text.contains("Connection: close\r\n"));
        assert!(text.contains("Content-Length: "));
    }
}
