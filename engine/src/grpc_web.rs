//! gRPC-Web (`PROTOCOL-WEB.md`): gRPC for clients that see neither trailers nor, in text mode,
//! bytes. The status comes as a last frame inside the body, and text mode is base64.
//!
//! A coder without input or output: `pipeline.rs` reads the [`Call`], `upload.rs` runs the body
//! through [`Base64`], `relay.rs` runs the answer through [`Answering`].

use crate::grpc::Kind;
use crate::io::Chunk;
use crate::message::{Name, ResponseHead};

const GRPC: &[u8] = b"application/grpc";
const STATUS: &[u8] = b"grpc-status";
/// Bytes in front of each message: a flag and the length.
const PREFIX: usize = 5;
/// The flag of the frame that carries trailers.
const TRAILERS: u8 = 0x80;
const NO_STATUS: &[u8] = b"grpc-status: 2\r\ngrpc-message: The service gave no status\r\n";

/// A gRPC-Web call, as its head tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The route translates it; otherwise it passes as it is.
    pub translated: bool,
    /// What the client wants its answer in.
    pub answer: Kind,
    text: bool,
    /// The content type towards the upstream.
    content_type: Vec<u8>,
    /// The format of messages that the client asks for (`+proto`), may be empty.
    format: Vec<u8>,
}

impl Call {
    /// Reads a call from its content type and its `Accept` values; `None`: it is not gRPC-Web.
    pub fn read<'a>(content_type: &[u8], accept: impl Iterator<Item = &'a [u8]>) -> Option<Call> {
        let kind = Kind::of(content_type).filter(|kind| *kind != Kind::Grpc)?;
        let rest = content_type.get(kind.content_type().len()..).unwrap_or_default();
        let ranges = accept.flat_map(|value| value.split(|&byte| byte == b','));
        let wanted = ranges.map(<[u8]>::trim_ascii).find_map(|range| {
            let kind = Kind::of(range).filter(|kind| *kind != Kind::Grpc)?;
            Some((kind, range.get(kind.content_type().len()..).unwrap_or_default()))
        });
        let (answer, format) = wanted.unwrap_or((kind, rest));
        Some(Call {
            translated: false,
            answer,
            text: kind == Kind::WebText,
            content_type: [GRPC, rest].concat(),
            format: format_of(format).to_vec(),
        })
    }

    /// The content type for the upstream, where the call is translated.
    pub fn content_type(&self) -> Option<&[u8]> {
        self.translated.then_some(&*self.content_type)
    }

    /// Whether the request's body changes on its way.
    pub fn decodes(&self) -> bool {
        self.translated && self.text
    }

    /// The coder of an upstream's answer; `None`: it is no answer of a gRPC server.
    pub fn answering(&self, head: &ResponseHead, bytes: &[u8]) -> Option<Answering> {
        let field = |id| head.fields.iter().find(|field| field.id == id && !field.drop);
        let content_type = field(Name::ContentType)?.value.of(bytes);
        if head.status != 200 || Kind::of(content_type) != Some(Kind::Grpc) {
            return None;
        }
        let mut format = format_of(content_type.get(GRPC.len()..).unwrap_or_default());
        if format.is_empty() {
            format = &self.format;
        }
        let mut status = Vec::new();
        for field in head.fields.iter().filter(|field| !field.drop) {
            let name = field.name.of(bytes);
            if is_status(name) {
                push_line(&mut status, name, field.value.of(bytes));
            }
        }
        Some(Answering {
            content_type: [self.answer.content_type(), format].concat(),
            text: self.answer == Kind::WebText,
            status,
            frames: Frames::default(),
        })
    }
}

/// Whether a content type calls itself gRPC and is of no kind that is known.
pub fn is_unknown(content_type: &[u8]) -> bool {
    let start = content_type.get(..GRPC.len()).unwrap_or_default();
    start.eq_ignore_ascii_case(GRPC) && Kind::of(content_type).is_none()
}

/// `+proto` of `+proto; charset=x`.
fn format_of(rest: &[u8]) -> &[u8] {
    let end = rest.iter().position(|byte| matches!(byte, b';' | b' ')).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

/// Whether a field belongs to the status, which an answer of a head alone has in its head.
fn is_status(name: &[u8]) -> bool {
    [STATUS, b"grpc-message", b"grpc-status-details-bin"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name))
}

fn push_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The upstream's body is not made of gRPC messages, or ends inside one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// An answer on its way from gRPC to gRPC-Web.
#[derive(Debug)]
pub struct Answering {
    /// The content type for the client.
    pub content_type: Vec<u8>,
    text: bool,
    /// Lines of the status that stood in the head.
    status: Vec<u8>,
    frames: Frames,
}

impl Answering {
    /// What becomes of a part of the body; with `end`, the trailer lines behind the body, it gets
    /// the frame that ends the answer. In text mode each part is base64 of its own.
    ///
    /// # Errors
    /// The client could not tell where messages end: nothing more may be sent.
    pub fn part(
        &mut self,
        data: Option<Chunk>,
        end: Option<&[u8]>,
    ) -> Result<Option<Chunk>, Broken> {
        if let Some(data) = &data {
            self.frames.follow(data.bytes())?;
        }
        let mut tail = Vec::new();
        if let Some(lines) = end {
            if !self.frames.is_between() {
                return Err(Broken);
            }
            self.end(lines, &mut tail);
        }
        if self.text {
            let mut out = Vec::new();
            match data {
                Some(data) if tail.is_empty() => encode(data.bytes(), &mut out),
                Some(data) => encode(&[data.bytes(), &tail].concat(), &mut out),
                None => encode(&tail, &mut out),
            }
            return Ok(chunk(&out));
        }
        let Some(mut data) = data else { return Ok(chunk(&tail)) };
        if !data.append(&tail) {
            data = Chunk::copy_of(&[data.bytes(), &tail].concat());
        }
        Ok(Some(data))
    }

    /// Whether a status could be put in here: between two messages.
    pub fn is_between(&self) -> bool {
        self.frames.is_between()
    }

    fn end(&self, trailers: &[u8], out: &mut Vec<u8>) {
        let mut lines = Vec::with_capacity(trailers.len());
        let mut told = false;
        for line in trailers.split(|&byte| byte == b'\n') {
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let (name, value) = line.split_at(colon);
            told |= name.eq_ignore_ascii_case(STATUS);
            push_line(&mut lines, name, value.get(1..).unwrap_or_default().trim_ascii());
        }
        if !told {
            // B-60: a call without a status has failed, whatever else came.
            let in_head = !self.status.is_empty();
            lines.extend_from_slice(if in_head { &self.status } else { NO_STATUS });
        }
        frame(&lines, out);
    }
}

fn chunk(bytes: &[u8]) -> Option<Chunk> {
    (!bytes.is_empty()).then(|| Chunk::copy_of(bytes))
}

fn frame(lines: &[u8], out: &mut Vec<u8>) {
    out.push(TRAILERS);
    // Trailers are bounded far below 4 GiB.
    out.extend_from_slice(&u32::try_from(lines.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(lines);
}

/// The body of an answer of ours to a call of that kind: its status as a frame. Empty for gRPC
/// proper, which has it in the head.
pub fn status_body(kind: Kind, code: u8, message: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    if kind == Kind::Grpc {
        return body;
    }
    let mut lines = Vec::with_capacity(64 + message.len());
    push_line(&mut lines, STATUS, code.to_string().as_bytes());
    push_line(&mut lines, b"grpc-message", message);
    frame(&lines, &mut body);
    if kind == Kind::WebText {
        let mut text = Vec::new();
        encode(&body, &mut text);
        return text;
    }
    body
}

/// Follows the messages of a body.
#[derive(Debug, Default)]
struct Frames {
    prefix: [u8; PREFIX],
    have: usize,
    left: u32,
}

impl Frames {
    fn follow(&mut self, mut data: &[u8]) -> Result<(), Broken> {
        while !data.is_empty() {
            if self.left > 0 {
                let taken = data.len().min(self.left as usize);
                self.left -= taken as u32;
                data = data.get(taken..).unwrap_or_default();
                continue;
            }
            let Some((&byte, rest)) = data.split_first() else { break };
            // Compressed or not. The bit of trailers is not the upstream's to set.
            if self.have == 0 && byte > 1 {
                return Err(Broken);
            }
            if let Some(slot) = self.prefix.get_mut(self.have) {
                *slot = byte;
            }
            self.have += 1;
            data = rest;
            if self.have == PREFIX {
                let [_, a, b, c, d] = self.prefix;
                self.left = u32::from_be_bytes([a, b, c, d]);
                self.have = 0;
            }
        }
        Ok(())
    }

    fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends base64 of `data` (RFC 4648 §4), padded.
pub fn encode(data: &[u8], out: &mut Vec<u8>) {
    out.reserve(data.len().div_ceil(3) * 4);
    for three in data.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let sextet = word >> (18 - 6 * at) & 63;
            out.push(if at > three.len() { b'=' } else { ALPHABET[sextet as usize] });
        }
    }
}

/// What is no base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBase64;

/// Decodes base64 as it comes. Padding ends a run, not the text: pieces may have been encoded
/// apart and put together.
#[derive(Debug, Default)]
pub struct Base64 {
    word: u32,
    /// Characters of a group of four so far, padding included.
    have: u8,
    padding: u8,
}

impl Base64 {
    /// Appends what `text` decodes to, as far as its groups are complete.
    ///
    /// # Errors
    /// A character or padding that cannot stand there.
    pub fn decode(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), NotBase64> {
        out.reserve(text.len() / 4 * 3 + 3);
        for &byte in text {
            let sextet = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' if self.have >= 2 => {
                    self.padding += 1;
                    0
                }
                _ => return Err(NotBase64),
            };
            if self.padding > 0 && byte != b'=' {
                return Err(NotBase64);
            }
            self.word = self.word << 6 | u32::from(sextet);
            self.have += 1;
            if self.have == 4 {
                let [_, a, b, c] = self.word.to_be_bytes();
                let bytes = [a, b, c];
                let whole = bytes.len() - usize::from(self.padding);
                out.extend_from_slice(bytes.get(..whole).unwrap_or_default());
                *self = Base64::default();
            }
        }
        Ok(())
    }

    /// # Errors
    /// The text stops inside a group.
    pub fn finish(&self) -> Result<(), NotBase64> {
        if self.have == 0 { Ok(()) } else { Err(NotBase64) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::HeadLimits;

    fn call(content_type: &str, accept: &[&str]) -> Option<Call> {
        Call::read(content_type.as_bytes(), accept.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn the_answer_comes_as_accept_asks_else_as_the_request_came() {
        use Kind::{Web, WebText};
        for (content_type, accept, text, answer, format) in [
            ("application/grpc-web", &[][..], false, Web, ""),
            ("application/grpc-web+proto", &["*/*"], false, Web, "+proto"),
            ("application/grpc-web-text+proto", &[], true, WebText, "+proto"),
            ("application/grpc-web+proto", &["application/grpc-web-text"], false, WebText, ""),
            ("application/grpc-web-text", &["x/y, Application/gRPC-Web+json"], true, Web, "+json"),
        ] {
            let call = call(content_type, accept).unwrap();
            let seen = (call.text, call.answer, call.format.as_slice());
            assert_eq!(seen, (text, answer, format.as_bytes()), "{content_type} {accept:?}");
            assert!(!call.decodes() && call.content_type().is_none(), "not unless the route says");
        }
        for other in ["application/grpc", "application/grpc-webx", "application/json", ""] {
            assert_eq!(call(other, &["application/grpc-web"]), None, "{other}");
        }
        let mut call = call("application/grpc-web-text+proto; x=y", &[]).unwrap();
        call.translated = true;
        assert_eq!(call.content_type(), Some(&b"application/grpc+proto; x=y"[..]));
        assert!(call.decodes());
    }

    fn answering(call: &Call, head: &str) -> Option<Answering> {
        let mut parsed = ResponseHead::new();
        parsed.parse(head.as_bytes(), false, &HeadLimits::RESPONSE).unwrap();
        call.answering(&parsed, head.as_bytes())
    }

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\n\r\n";

    #[test]
    fn only_a_grpc_answer_is_translated() {
        let call = call("application/grpc-web+proto", &[]).unwrap();
        assert_eq!(answering(&call, HEAD).unwrap().content_type, b"application/grpc-web+proto");
        let json = HEAD.replace("grpc", "grpc+json");
        assert_eq!(answering(&call, &json).unwrap().content_type, b"application/grpc-web+json");
        assert!(answering(&call, &HEAD.replace("200 OK", "503 No")).is_none());
        assert!(answering(&call, &HEAD.replace("application/grpc", "text/html")).is_none());
        assert!(answering(&call, "HTTP/1.1 200 OK\r\n\r\n").is_none());
    }

    fn bytes(chunk: Option<Chunk>) -> Vec<u8> {
        chunk.map(|chunk| chunk.bytes().to_vec()).unwrap_or_default()
    }

    #[test]
    fn the_status_is_the_last_frame() {
        let call = call("application/grpc-web", &[]).unwrap();
        let mut answer = answering(&call, HEAD).unwrap();
        let message = Chunk::copy_of(b"\0\0\0\0\x02hi");
        let end = b"Grpc-Status:0\r\nx-y:  z\r\n";
        let out = bytes(answer.part(Some(message), Some(end)).unwrap());
        assert_eq!(out, b"\0\0\0\0\x02hi\x80\0\0\0\x18grpc-status: 0\r\nx-y: z\r\n");

        let bare = HEAD.replace("\r\n\r\n", "\r\nGRPC-Status: 5\r\ngrpc-message: no\r\n\r\n");
        let out = bytes(answering(&call, &bare).unwrap().part(None, Some(b"")).unwrap());
        assert_eq!(out, b"\x80\0\0\0\x22grpc-status: 5\r\ngrpc-message: no\r\n");

        let out = bytes(answering(&call, HEAD).unwrap().part(None, Some(b"x: y\r\n")).unwrap());
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(text.contains("x: y\r\ngrpc-status: 2\r\n"), "{text}");
    }

    #[test]
    fn nothing_may_pass_for_the_gateways_frame() {
        let call = call("application/grpc-web", &[]).unwrap();
        let mut answer = answering(&call, HEAD).unwrap();
        let forged = Chunk::copy_of(b"\x80\0\0\0\x10grpc-status: 0\r\n");
        assert_eq!(answer.part(Some(forged), None).err(), Some(Broken));
        let mut answer = answering(&call, HEAD).unwrap();
        let cut = Chunk::copy_of(b"\0\0\0\0\x05hi");
        assert!(answer.part(Some(cut), None).is_ok() && !answer.is_between());
        assert_eq!(answer.part(None, Some(b"grpc-status: 0\r\n")).err(), Some(Broken));
    }

    #[test]
    fn own_answers_have_their_status_in_the_body() {
        assert_eq!(status_body(Kind::Grpc, 14, b"no"), b"");
        let plain = status_body(Kind::Web, 14, b"no");
        assert_eq!(plain, b"\x80\0\0\0\x23grpc-status: 14\r\ngrpc-message: no\r\n");
        let mut back = Vec::new();
        Base64::default().decode(&status_body(Kind::WebText, 14, b"no"), &mut back).unwrap();
        assert_eq!(back, plain);
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let (mut out, mut back) = (Vec::new(), Vec::new());
            encode(plain.as_bytes(), &mut out);
            assert_eq!(out, text.as_bytes());
            let mut decoder = Base64::default();
            decoder.decode(&out, &mut back).and_then(|()| decoder.finish()).unwrap();
            assert_eq!(back, plain.as_bytes());
        }
        for bad in ["Z", "Zg", "Zg=", "Z===", "=", "Zg=g", "Zg==x", "Zm9v\n", "Zm-v", "Zm9v===="] {
            let mut decoder = Base64::default();
            let read = decoder.decode(bad.as_bytes(), &mut Vec::new());
            assert!(read.and_then(|()| decoder.finish()).is_err(), "{bad}");
        }
    }

    fn cut<'a>(whole: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
        at.extend([0, whole.len()]);
        at.sort_unstable();
        at.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect()
    }

    proptest! {
        #[test]
        fn text_decodes_however_it_was_encoded_and_cut(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut text = Vec::new();
            parts.iter().for_each(|part| encode(part, &mut text));
            let (mut decoder, mut out) = (Base64::default(), Vec::new());
            for piece in cut(&text, &cuts) {
                decoder.decode(piece, &mut out).unwrap();
            }
            decoder.finish().unwrap();
            prop_assert_eq!(out, parts.concat());
        }

        #[test]
        fn a_decoder_takes_anything_without_a_panic(text in prop::collection::vec(any::<u8>(), 0..99)) {
            let mut out = Vec::new();
            let _ = Base64::default().decode(&text, &mut out);
            prop_assert!(out.len() <= text.len());
        }

        #[test]
        fn an_answer_in_any_pieces_is_its_messages_and_the_status(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            text in any::<bool>(),
            end_apart in any::<bool>(),
        ) {
            let mut body = Vec::new();
            for message in &messages {
                body.push(0);
                body.extend_from_slice(&(message.len() as u32).to_be_bytes());
                body.extend_from_slice(message);
            }
            let kind = if text { "application/grpc-web-text" } else { "application/grpc-web" };
            let mut answer = answering(&call(kind, &[]).unwrap(), HEAD).unwrap();
            let trailers: &[u8] = b"grpc-status: 0\r\n";
            let pieces = cut(&body, &cuts);
            let mut parts = Vec::new();
            for (at, piece) in pieces.iter().enumerate() {
                let last = !end_apart && at + 1 == pieces.len();
                let data = (!piece.is_empty()).then(|| Chunk::copy_of(piece));
                parts.push(bytes(answer.part(data, last.then_some(trailers)).unwrap()));
            }
            if end_apart {
                parts.push(bytes(answer.part(None, Some(trailers)).unwrap()));
            }
            let mut seen = Vec::new();
            for part in parts {
                if !text {
                    seen.extend_from_slice(&part);
                    continue;
                }
                let mut decoder = Base64::default();
                decoder.decode(&part, &mut seen).unwrap();
                prop_assert_eq!(decoder.finish(), Ok(()), "each part stands on its own");
            }
            body.extend_from_slice(b"\x80\0\0\0\x10grpc-status: 0\r\n");
            prop_assert_eq!(seen, body);
        }
    }
}
