//! Bodies that are changed, and answers that are compressed.

mod compress;
mod jq;
mod records;
mod whole;

use std::io::Read;

use tests::spec::Spec;
use tests::{Gateway, Origin, Response};

/// A gateway whose route has these settings.
fn gateway(origin: &Origin, settings: &str) -> Gateway {
    Gateway::single(&Spec::to(origin.address()).route(settings))
}

fn post(content_type: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "POST /x?id=7 HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn encoded(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let level = flate2::Compression::fast();
    match coding {
        "gzip" => drop(flate2::read::GzEncoder::new(body, level).read_to_end(&mut out)),
        "deflate" => drop(flate2::read::ZlibEncoder::new(body, level).read_to_end(&mut out)),
        "br" => drop(brotli::CompressorReader::new(body, 4096, 3, 18).read_to_end(&mut out)),
        _ => out = zstd::encode_all(body, 1).expect("in memory"),
    }
    out
}

fn decoded(response: &Response) -> Vec<u8> {
    let body = &response.body[..];
    let mut out = Vec::new();
    let read = match response.field("content-encoding") {
        None => return body.to_vec(),
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut out),
        Some("deflate") => flate2::read::ZlibDecoder::new(body).read_to_end(&mut out),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut out),
        Some("zstd") => zstd::Decoder::new(body).expect("in memory").read_to_end(&mut out),
        Some(other) => panic!("{other}"),
    };
    read.expect("is encoded as it says");
    out
}
