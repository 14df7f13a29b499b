//! Between JSON and gRPC.

use contract::encode::MAX_TRANSCODED;

use super::fields::{Fields, Walk};
use super::parts::{count, flag, locality, name, one_of};
use super::route::size;
use crate::spec::model::{
    CustomMethod, DEFAULT_REFRESH_S, DEFAULT_TRANSCODED_BYTES, HttpBinding, PrintOptions,
    ProtoSource, Reflection, StreamFormat, Transcode, TranscodeTarget, Unknown, UnknownQuery,
};
use crate::spec::scalars;
use crate::spec::tree::{Node, Value};

pub(super) fn proto(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<ProtoSource> {
    const KNOWN: &[&str] =
        &["name", "workspace", "files", "includes", "descriptor_set", "reflection"];
    let empty = ProtoSource {
        name: String::new(),
        workspace: None,
        files: Vec::new(),
        includes: Vec::new(),
        descriptor_set: None,
        reflection: None,
    };
    let Some(fields) = walk.fields(node, path, KNOWN) else { return Some(empty) };
    let read = ProtoSource {
        name: name(walk, &fields),
        workspace: fields.read(walk, "workspace", locality),
        files: fields.read(walk, "files", files).unwrap_or_default(),
        includes: fields.read(walk, "includes", files).unwrap_or_default(),
        descriptor_set: fields.read(walk, "descriptor_set", file),
        reflection: fields.read(walk, "reflection", reflection),
    };
    one_of(walk, &fields, &["files", "descriptor_set", "reflection"]);
    if let (Some(node), None) = (fields.node("includes"), fields.node("files")) {
        let message = "only `files` are compiled; leave `includes` out";
        walk.error("conflicting-fields", node, &fields.at("includes"), message.into());
    }
    Some(read)
}

fn file(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<String> {
    walk.parsed(node, path, "bad-value", |text| match text {
        "" => Err("expected the name of a file".into()),
        text if text.contains('\0') => Err("a file name has no NUL byte".into()),
        text => Ok(text.into()),
    })
}

fn files(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Vec<String>> {
    let list = walk.list(node, path, file)?;
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        walk.error("empty-list", node, path, "expected at least one name".into());
    }
    Some(list)
}

fn reflection(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Reflection> {
    let fields = walk.fields(node, path, &["upstream", "refresh_s"])?;
    let upstream =
        fields.require(walk, "upstream", "the name of an upstream", |walk, node, path| {
            walk.text(node, path)
        });
    let refresh_s = count(walk, &fields, "refresh_s", 1, 86_400, DEFAULT_REFRESH_S);
    Some(Reflection { upstream: upstream.unwrap_or_default(), refresh_s })
}

pub(super) fn transcode(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<Transcode> {
    const KNOWN: &[&str] = &[
        "proto",
        "services",
        "to",
        "bindings",
        "auto_mapping",
        "print",
        "streams",
        "unknown_query",
        "unknown_fields",
        "status_details",
        "case_insensitive_enums",
        "max_request_bytes",
        "max_response_bytes",
    ];
    const TARGETS: &[(&str, TranscodeTarget)] =
        &[("grpc", TranscodeTarget::Grpc), ("json", TranscodeTarget::Json)];
    const STREAMS: &[(&str, StreamFormat)] = &[
        ("array", StreamFormat::Array),
        ("ndjson", StreamFormat::Ndjson),
        ("sse", StreamFormat::Sse),
    ];
    let fields = walk.fields(node, path, KNOWN)?;
    let text = |walk: &mut Walk<'_>, node: &Node, path: &str| walk.text(node, path);
    let proto = fields.require(walk, "proto", "the name of descriptors in `protos`", text);
    let services = fields.require(walk, "services", "a list of services", |walk, node, path| {
        let list = walk.list(node, path, text)?;
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            walk.error("empty-list", node, path, "expected at least one service".into());
        }
        Some(list)
    });
    let to = fields.read(walk, "to", |walk, node, path| walk.word(node, path, TARGETS));
    let bindings = fields.read(walk, "bindings", |walk, node, path| {
        walk.list(node, path, |walk, node, path| binding(walk, node, path, false))
    });
    let auto_mapping = flag(walk, &fields, "auto_mapping", false);
    let print = fields.read(walk, "print", print);
    let streams = fields.read(walk, "streams", |walk, node, path| walk.word(node, path, STREAMS));
    let unknown_query = fields.read(walk, "unknown_query", |walk, node, path| match node.value {
        Value::List(_) => walk.list(node, path, text).map(UnknownQuery::Listed),
        _ => walk.word(node, path, UNKNOWN).map(UnknownQuery::All),
    });
    let unknown_fields =
        fields.read(walk, "unknown_fields", |walk, node, path| walk.word(node, path, UNKNOWN));
    let status_details = flag(walk, &fields, "status_details", true);
    let case_insensitive_enums = flag(walk, &fields, "case_insensitive_enums", false);
    let max_request_bytes = bytes(walk, &fields, "max_request_bytes");
    let max_response_bytes = bytes(walk, &fields, "max_response_bytes");
    Some(Transcode {
        proto: proto.unwrap_or_default(),
        services: services.unwrap_or_default(),
        to: to.unwrap_or_default(),
        bindings: bindings.unwrap_or_default(),
        auto_mapping,
        print: print.unwrap_or_default(),
        streams: streams.unwrap_or_default(),
        unknown_query: unknown_query.unwrap_or_default(),
        unknown_fields: unknown_fields.unwrap_or_default(),
        status_details,
        case_insensitive_enums,
        max_request_bytes,
        max_response_bytes,
    })
}

const UNKNOWN: &[(&str, Unknown)] = &[("refuse", Unknown::Refuse), ("ignore", Unknown::Ignore)];

fn bytes(walk: &mut Walk<'_>, fields: &Fields<'_>, name: &str) -> u64 {
    let read = fields.read(walk, name, size).unwrap_or(DEFAULT_TRANSCODED_BYTES);
    if let Some(node) = fields.node(name)
        && !(1..=u64::from(MAX_TRANSCODED)).contains(&read)
    {
        let message = format!("expected 1 to {MAX_TRANSCODED} bytes (64MiB)");
        walk.error("out-of-range", node, &fields.at(name), message);
        return DEFAULT_TRANSCODED_BYTES;
    }
    read
}

fn print(walk: &mut Walk<'_>, node: &Node, path: &str) -> Option<PrintOptions> {
    const KNOWN: &[&str] = &[
        "always_print_primitive_fields",
        "enums_as_ints",
        "preserve_proto_field_names",
        "whitespace",
    ];
    let fields = walk.fields(node, path, KNOWN)?;
    Some(PrintOptions {
        always_print_primitive_fields: flag(walk, &fields, "always_print_primitive_fields", false),
        enums_as_ints: flag(walk, &fields, "enums_as_ints", false),
        preserve_proto_field_names: flag(walk, &fields, "preserve_proto_field_names", false),
        whitespace: flag(walk, &fields, "whitespace", false),
    })
}

/// `additional`: it is one of another's.
fn binding(walk: &mut Walk<'_>, node: &Node, path: &str, additional: bool) -> Option<HttpBinding> {
    const KNOWN: &[&str] = &[
        "selector",
        "get",
        "put",
        "post",
        "delete",
        "patch",
        "custom",
        "body",
        "response_body",
        "additional_bindings",
    ];
    const ADDITIONAL: &[&str] =
        &["get", "put", "post", "delete", "patch", "custom", "body", "response_body"];
    let fields = walk.fields(node, path, if additional { ADDITIONAL } else { KNOWN })?;
    let text = |walk: &mut Walk<'_>, node: &Node, path: &str| walk.text(node, path);
    let selector = match additional {
        true => None,
        false => fields.require(walk, "selector", "the full name of a method", text),
    };
    one_of(walk, &fields, &["get", "put", "post", "delete", "patch", "custom"]);
    let template = |walk: &mut Walk<'_>, node: &Node, path: &str| {
        walk.parsed(node, path, "bad-path", |text| match text.starts_with('/') {
            true => Ok(text.to_string()),
            false => Err("a path template begins with `/`, as /v1/{name=items/*}".into()),
        })
    };
    Some(HttpBinding {
        selector: selector.unwrap_or_default(),
        get: fields.read(walk, "get", template),
        put: fields.read(walk, "put", template),
        post: fields.read(walk, "post", template),
        delete: fields.read(walk, "delete", template),
        patch: fields.read(walk, "patch", template),
        custom: fields.read(walk, "custom", |walk, node, path| {
            let fields = walk.fields(node, path, &["kind", "path"])?;
            let kind = fields.require(walk, "kind", "an HTTP method, or *", |walk, node, path| {
                walk.parsed(node, path, "bad-value", |text| match text {
                    "*" => Ok("*".to_string()),
                    text if scalars::is_token(text) => Ok(text.to_ascii_uppercase()),
                    _ => Err("expected an HTTP method, or *".into()),
                })
            });
            let own = fields.require(walk, "path", "a path template", template);
            Some(CustomMethod { kind: kind?, path: own? })
        }),
        body: fields.read(walk, "body", text).unwrap_or_default(),
        response_body: fields.read(walk, "response_body", text).unwrap_or_default(),
        additional_bindings: fields
            .read(walk, "additional_bindings", |walk, node, path| {
                walk.list(node, path, |walk, node, path| binding(walk, node, path, true))
            })
            .unwrap_or_default(),
    })
}
