//! Entry points for fuzzing: they panic where the parsers break a promise, never on bad input.
//!
//! The first byte chooses where the rest is split, so that one corpus covers both ways of arrival.

use super::{
    ChunkError, ChunkedDecoder, Event, Field, HeadLimits, Progress, RequestHead, ResponseHead,
    Span, write,
};

/// Parses `data` as a request head: whole, in pieces, and once more after re-serialising.
pub fn fuzz_request(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else { return };
    let limits = HeadLimits { drop_underscore: step & 1 == 1, ..HeadLimits::REQUEST };
    let (mut whole, mut parts) = (RequestHead::new(), RequestHead::new());
    let verdict = whole.parse(bytes, &limits);
    let in_parts = in_pieces(bytes, step, |bytes| parts.parse(bytes, &limits));
    match verdict {
        Ok(Progress::Complete) => {
            assert_eq!(in_parts, Ok(Progress::Complete));
            assert_eq!(whole.fields, parts.fields);
            assert_eq!((whole.framing, whole.target), (parts.framing, parts.target));
            check_fields(bytes, whole.head_len, &whole.fields);
            reparse_request(bytes, &whole);
        }
        Ok(Progress::Partial) => assert_eq!(in_parts, Ok(Progress::Partial)),
        // Found earlier, a fault may go by another name.
        Err(_) => assert!(in_parts.is_err(), "{verdict:?} at once, {in_parts:?} in pieces"),
    }
}

/// What the forwarder writes of a head must be read back as the same head.
fn reparse_request(bytes: &[u8], head: &RequestHead) {
    let Some(Span { start, end }) = head.authority() else { return };
    let host = bytes.get(start as usize..end as usize).unwrap_or_default();
    let mut out = Vec::new();
    if head.path(bytes).is_empty() {
        return; // CONNECT and `OPTIONS *` are not forwarded.
    }
    write::request_line(&mut out, head.method(bytes), head.path(bytes), head.query(bytes));
    write::field(&mut out, b"Host", host);
    let skip = |field: &&Field| field.forwarded() && field.id != super::Name::Host;
    for field in head.fields.iter().filter(skip) {
        write::field(&mut out, field.name.of(bytes), field.value.of(bytes));
    }
    out.extend_from_slice(write::CRLF);
    let mut again = RequestHead::new();
    let roomy =
        HeadLimits { max_head: usize::MAX / 2, max_line: usize::MAX / 4, ..HeadLimits::REQUEST };
    match again.parse(&out, &roomy) {
        Ok(progress) => assert_eq!(progress, Progress::Complete),
        Err(refusal) => panic!("{refusal}: {}", out.escape_ascii()),
    }
    assert_eq!(again.path(&out), head.path(bytes));
    assert_eq!(again.head_len, out.len());
}

/// Parses `data` as a response head, whole and in pieces.
pub fn fuzz_response(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else { return };
    let limits = HeadLimits::RESPONSE;
    let (mut whole, mut parts) = (ResponseHead::new(), ResponseHead::new());
    let verdict = whole.parse(bytes, step & 1 == 1, &limits);
    let in_parts = in_pieces(bytes, step, |bytes| parts.parse(bytes, step & 1 == 1, &limits));
    match verdict {
        Ok(Progress::Complete) => {
            assert_eq!(in_parts, Ok(Progress::Complete));
            assert_eq!((&whole.fields, whole.framing), (&parts.fields, parts.framing));
            assert!((100..=999).contains(&whole.status));
            check_fields(bytes, whole.head_len, &whole.fields);
        }
        Ok(Progress::Partial) => assert_eq!(in_parts, Ok(Progress::Partial)),
        Err(_) => assert!(in_parts.is_err(), "{verdict:?} at once, {in_parts:?} in pieces"),
    }
}

/// Decodes `data` as a chunked body, whole and in pieces, and once more after encoding.
pub fn fuzz_chunked(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else { return };
    let whole = decode(bytes, usize::MAX);
    let parts = decode(bytes, step_len(step));
    assert_eq!(whole, parts);
    let Ok(Some((body, trailers, used))) = whole else { return };
    assert!(used <= bytes.len());
    let mut encoded = Vec::new();
    for part in body.chunks(step_len(step)) {
        write::chunk(&mut encoded, part);
    }
    encoded.extend_from_slice(write::LAST_CHUNK_SIZE);
    encoded.extend_from_slice(&trailers);
    encoded.extend_from_slice(write::CRLF);
    let len = encoded.len();
    // The space behind the colon can make trailers longer than they came, and too long.
    if trailers.len() < 7 * 1024 {
        assert_eq!(decode(&encoded, usize::MAX), Ok(Some((body, trailers, len))));
    }
}

/// Data, trailers and bytes used of a body fed in pieces of at most `step` bytes; `None`: its end
/// is missing.
type Decoded = Result<Option<(Vec<u8>, Vec<u8>, usize)>, ChunkError>;

fn decode(bytes: &[u8], step: usize) -> Decoded {
    let mut decoder = ChunkedDecoder::new();
    let (mut body, mut total) = (Vec::new(), 0);
    for mut piece in bytes.chunks(step) {
        while !piece.is_empty() {
            let (used, event) = decoder.next(piece)?;
            let (seen, rest) = piece.split_at(used);
            total += used;
            match event {
                Event::Data(data) => {
                    assert!(!data.is_empty() && seen.ends_with(data));
                    body.extend_from_slice(data);
                }
                Event::NeedMore => assert!(rest.is_empty()),
                Event::Done => return Ok(Some((body, decoder.trailers().to_vec(), total))),
            }
            piece = rest;
        }
    }
    Ok(None)
}

fn step_len(step: u8) -> usize {
    usize::from(step / 2) + 1
}

/// Feeds growing prefixes until one is refused or complete.
fn in_pieces<E>(
    bytes: &[u8],
    step: u8,
    mut parse: impl FnMut(&[u8]) -> Result<Progress, E>,
) -> Result<Progress, E> {
    let mut end = 0;
    while end < bytes.len() {
        end = bytes.len().min(end + step_len(step));
        match parse(bytes.get(..end).unwrap_or_default()) {
            Ok(Progress::Partial) => {}
            done => return done,
        }
    }
    Ok(Progress::Partial)
}

fn check_fields(bytes: &[u8], head_len: usize, fields: &[Field]) {
    assert!(head_len <= bytes.len());
    for field in fields {
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        assert!(!name.is_empty() && name.iter().all(|&byte| super::fields::is_tchar(byte)));
        assert_eq!(value, super::fields::trim(value));
        assert!(!value.iter().any(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f));
        assert!(field.name.end < field.value.end.max(field.value.start));
        assert!(field.value.end as usize <= head_len);
        assert!(value.len() == field.value.len() && name.len() == field.name.len());
    }
}
