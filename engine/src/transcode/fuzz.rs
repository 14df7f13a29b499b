//! Entry point for fuzzing: it panics where a promise is broken, never on bad input.

use std::sync::OnceLock;

use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use super::frames::{BadFrame, Frames};
use super::json::{Printing, Reading};
use super::proto::Proto;
use super::schema::Schema;
use super::split::{Splitter, Uncut};
use super::status::Status;
use super::table::{Path, Table};
use super::template::Template;

/// A type with a field of each kind, itself among them, and of the well-known types.
fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let mut pool = DescriptorPool::global();
        let mut message = DescriptorProto { name: Some("All".into()), ..Default::default() };
        let scalars = [
            Type::Double,
            Type::Float,
            Type::Int32,
            Type::Int64,
            Type::Uint64,
            Type::Sint32,
            Type::Sint64,
            Type::Fixed32,
            Type::Sfixed64,
            Type::Bool,
            Type::String,
            Type::Bytes,
        ];
        let known = [
            ".fuzz.All",
            ".google.protobuf.Any",
            ".google.protobuf.Timestamp",
            ".google.protobuf.Duration",
            ".google.protobuf.FieldMask",
            ".google.protobuf.Struct",
            ".google.protobuf.Value",
            ".google.protobuf.ListValue",
            ".google.protobuf.Int64Value",
            ".google.protobuf.BytesValue",
        ];
        let kinds = scalars.iter().map(|kind| (*kind, None));
        let kinds = kinds.chain(known.iter().map(|name| (Type::Message, Some(name.to_string()))));
        for (at, (kind, type_name)) in kinds.enumerate() {
            for (list, label) in [(0, Label::Optional), (1, Label::Repeated)] {
                let mut field = FieldDescriptorProto {
                    name: Some(format!("f{at}_{list}")),
                    number: Some(1 + at as i32 * 2 + list),
                    type_name: type_name.clone(),
                    ..Default::default()
                };
                field.set_type(kind);
                field.set_label(label);
                message.field.push(field);
            }
        }
        let names = ["any", "timestamp", "duration", "field_mask", "struct", "wrappers"];
        let file = FileDescriptorProto {
            name: Some("fuzz.proto".into()),
            package: Some("fuzz".into()),
            syntax: Some("proto3".into()),
            dependency: names.iter().map(|name| format!("google/protobuf/{name}.proto")).collect(),
            message_type: vec![message],
            ..Default::default()
        };
        pool.add_file_descriptor_proto(file).expect("a file of ours");
        Schema::of(&pool).expect("a schema of ours")
    })
}

/// Reads `data` as a path template, a path, JSON of a message, a message, streams of either, descriptors.
#[doc(hidden)]
pub fn fuzz_transcode(data: &[u8]) {
    let schema = schema();
    let index = schema.find("fuzz.All").expect("a type of ours");
    let printing =
        Printing { schema, always: false, enum_numbers: false, proto_names: false, pretty: false };
    let reading = Reading { schema, ignore_unknown: false, any_case: true };
    let mut bytes = Vec::new();
    if reading.message(data, index, &mut bytes).is_ok() {
        let mut text = Vec::new();
        printing.message(&bytes, index, &mut text).expect("what was read can be told");
        let mut again = Vec::new();
        reading.message(&text, index, &mut again).expect("what is told can be read");
        let mut twice = Vec::new();
        printing.message(&again, index, &mut twice).expect("what was read can be told");
        assert_eq!(text, twice);
    }
    let mut text = Vec::new();
    if printing.message(data, index, &mut text).is_ok() {
        serde_json::from_slice::<serde::de::IgnoredAny>(&text).expect("what is told is JSON");
        let lenient = Reading { ignore_unknown: true, ..reading };
        lenient.message(&text, index, &mut Vec::new()).expect("what is told can be read");
    }
    if let Ok(template) =
        std::str::from_utf8(data).map_err(drop).and_then(|text| Template::parse(text).map_err(drop))
    {
        let mut table = Table::default();
        assert_eq!(table.add("GET", &template, 0), Ok(()));
        assert_eq!(table.add("GET", &template, 1), Err(0));
        for variable in &template.variables {
            let (start, end) = template.range(variable, template.segments.len());
            assert!(start <= end && end <= template.segments.len());
        }
    }
    if let Some(path) = Path::split(data) {
        let mut table = Table::default();
        for (at, text) in ["/{a}/b:c", "/{a=**}/d", "/a/*/{b=c/**}:d"].iter().enumerate() {
            let template = Template::parse(text).expect("a template of ours");
            table.add("*", &template, at).expect("they differ");
        }
        table.find(b"GET", &path);
    }
    let split = |pieces: &[&[u8]]| {
        let mut splitter = Splitter::new(1 << 16);
        let mut out = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            let fed = splitter.feed(piece, at + 1 == pieces.len(), |value| {
                out.push(value.to_vec());
                Ok::<(), Uncut>(())
            });
            fed.ok()?;
        }
        Some(out)
    };
    let (a, b) = data.split_at(data.len() / 2);
    assert_eq!(split(&[data]), split(&[a, b]));
    let mut frames = Frames::new(1 << 16);
    let _ = frames.feed(data, |_| Ok::<(), BadFrame>(()));
    if let Some(status) = Status::of_trailers(data) {
        let mut text = Vec::new();
        status.print(&printing, true, &mut text);
        serde_json::from_slice::<serde::de::IgnoredAny>(&text).expect("a status is JSON");
    }
    if data.len() < 4096 {
        let _ = Proto::build("fuzz", data);
    }
    debug_assert!(DescriptorPool::global().get_message_by_name("google.protobuf.Any").is_some());
    let _ = DescriptorProto::decode(data);
}
