//! Routes' tables, parameters, and messages of random types that come back as they went.

use std::sync::Arc;

use contract::snapshot::{
    HttpRule, PrintJson, RouteTranscode, StreamForm, TranscodeTo, UnknownQuery as Flat,
};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MessageOptions, OneofDescriptorProto,
};
use prost_reflect::{DescriptorPool, DynamicMessage};

use super::json::{Printing, Reading};
use super::params;
use super::schema::Schema;
use super::table::{Lookup, Path};
use super::wire::{Fields, WireType, write_bytes, write_tag, write_varint};
use super::{Proto, Transcode};

const SHOP: &str = r#"
syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/field_mask.proto";
message Item { string name = 1; int64 price = 2; Size size = 3; repeated string tags = 4; Item part = 5;
  google.protobuf.Timestamp since = 6; google.protobuf.Int32Value stock = 7; map<string, string> labels = 8;
  google.protobuf.FieldMask mask = 9; bool sold = 10; repeated int32 counts = 11; bytes raw = 12; }
enum Size { SMALL = 0; LARGE = 1; }
service Shop {
  rpc Get(Item) returns (Item);
  rpc Put(Item) returns (Item);
  rpc Watch(stream Item) returns (stream Item);
}
"#;

fn proto() -> Arc<Proto> {
    struct One;
    impl protox::file::FileResolver for One {
        fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
            match name {
                "shop.proto" => protox::file::File::from_source(name, SHOP),
                _ => Err(protox::Error::file_not_found(name)),
            }
        }
    }
    let mut resolver = protox::file::ChainFileResolver::new();
    resolver.add(One);
    resolver.add(protox::file::GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("shop.proto").unwrap();
    Arc::new(Proto::build("shop", &compiler.encode_file_descriptor_set()).unwrap())
}

fn route(rules: &[(&str, &str, &str, &str)]) -> RouteTranscode {
    RouteTranscode {
        proto: 0,
        to: TranscodeTo::Grpc,
        services: vec!["shop.v1.Shop".into()],
        rules: rules
            .iter()
            .enumerate()
            .map(|(at, (selector, method, path, body))| HttpRule {
                at: at as u32,
                selector: format!("shop.v1.Shop.{selector}"),
                method: method.to_string(),
                path: path.to_string(),
                body: body.to_string(),
                response_body: String::new(),
            })
            .collect(),
        auto_mapping: false,
        print: PrintJson::default(),
        streams: StreamForm::Array,
        unknown_query: Flat::Refuse,
        ignore_unknown_fields: false,
        status_details: true,
        any_case_enums: false,
        max_request_bytes: 1 << 20,
        max_response_bytes: 1 << 20,
    }
}

/// The message that path, query and body make, as JSON, or what is wrong.
fn made(transcode: &Transcode, request: &str, body: &str) -> Result<String, String> {
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = Path::split(path.as_bytes()).unwrap();
    let Lookup::Found(place) = transcode.table.find(method.as_bytes(), &path) else {
        return Err("no binding".into());
    };
    let binding = &transcode.bindings[place];
    let method = binding.method(&transcode.proto).unwrap();
    let mut out = Vec::new();
    if !body.is_empty() {
        super::inward::message(transcode, &binding.body, binding.method, body.as_bytes(), &mut out)
            .map_err(|fault| format!("body {} {}", fault.pointer, fault.problem))?;
    }
    let reading = transcode.reading();
    let told = |fault: crate::validate::Fault| {
        format!("{:?} {}: {}", fault.place, fault.pointer, fault.message)
    };
    params::write_path(&reading, binding, &path, &mut out).map_err(told)?;
    let unknown = &transcode.unknown_query;
    params::write_query(&reading, binding, method.input, query.as_bytes(), unknown, &mut out)
        .map_err(told)?;
    let mut text = Vec::new();
    transcode.printing(false).message(&out, method.input, &mut text).unwrap();
    Ok(String::from_utf8(text).unwrap())
}

#[test]
fn path_query_and_body_become_one_message() {
    let rules = [
        ("Get", "GET", "/v1/{name=items/*}", ""),
        ("Put", "PUT", "/v1/{name=items/*}", "*"),
        ("Put", "POST", "/v1/{part.name}/part", "part.part"),
        ("Put", "PATCH", "/v1/{size}/{price}", "tags"),
    ];
    let transcode = Transcode::build(&route(&rules), proto()).unwrap();
    for (request, body, expected) in [
        ("GET /v1/items/a%20b", "", Ok(r#"{"name":"items/a b"}"#)),
        (
            "GET /v1/items/a?price=7&tags=x&tags=y%26z&part.part.name=n&sold=true",
            "",
            Ok(
                r#"{"name":"items/a","price":"7","tags":["x","y&z"],"part":{"part":{"name":"n"}},"sold":true}"#,
            ),
        ),
        (
            "GET /v1/items/a?since=1970-01-01T00:00:01Z&stock=0&mask=fooBar,b&size=LARGE&counts=1&counts=2&raw=AQI",
            "",
            Ok(
                r#"{"name":"items/a","size":"LARGE","since":"1970-01-01T00:00:01Z","stock":0,"mask":"fooBar,b","counts":[1,2],"raw":"AQI="}"#,
            ),
        ),
        ("GET /v1/items/a?size=1", "", Ok(r#"{"name":"items/a","size":"LARGE"}"#)),
        ("GET /v1/items/a?part.sold=false", "", Ok(r#"{"name":"items/a","part":{}}"#)),
        ("GET /v1/items/a?nothing=1", "", Err("Query nothing: there is no such parameter")),
        ("GET /v1/items/a?price=x", "", Err("Query price: this is not what the field takes")),
        ("GET /v1/items/a?price=1&price=2", "", Err("Query price: it is there twice")),
        ("GET /v1/items/a?name=b", "", Err("Query name: it stands in the path or body already")),
        (
            "GET /v1/items/a?labels=b",
            "",
            Err("Query labels: a message or map cannot stand in a query"),
        ),
        ("GET /v1/items/a?part=b", "", Err("Query part: a message or map cannot stand in a query")),
        ("GET /v1/items/a?tags.x=b", "", Err("Query tags.x: this is no single message")),
        ("GET /v1/items/a?name%FF=b", "", Err("Query name\u{fffd}: there is no such parameter")),
        ("GET /v1/items/%FF", "", Err("Path name: the value is not UTF-8")),
        // What the path says goes before what the body does.
        ("PUT /v1/items/a", r#"{"name":"b","price":7}"#, Ok(r#"{"name":"items/a","price":"7"}"#)),
        (
            "PUT /v1/items/a?price=1",
            r#"{"price":7}"#,
            Err("Query price: there is no such parameter"),
        ),
        (
            "POST /v1/p/part?price=3",
            r#"{"name":"inner"}"#,
            Ok(r#"{"price":"3","part":{"name":"p","part":{"name":"inner"}}}"#),
        ),
        (
            "POST /v1/p/part?part.part.name=x",
            "{}",
            Err("Query part.part.name: it stands in the path or body already"),
        ),
        ("PATCH /v1/LARGE/0", r#"["a","b"]"#, Ok(r#"{"size":"LARGE","tags":["a","b"]}"#)),
        ("PATCH /v1/HUGE/0", "[]", Err("Path size: this is not what the field takes")),
        ("PATCH /v1/LARGE/0", r#"[1]"#, Err("body /0 expected a text")),
        ("DELETE /v1/items/a", "", Err("no binding")),
    ] {
        let expected = expected.map(String::from).map_err(String::from);
        assert_eq!(made(&transcode, request, body), expected, "{request} {body}");
    }
    let ignoring = RouteTranscode { unknown_query: Flat::Ignore, ..route(&rules) };
    let ignoring = Transcode::build(&ignoring, proto()).unwrap();
    let request = "GET /v1/items/a?nothing=1&labels=x&name=b&price=2";
    assert_eq!(made(&ignoring, request, "").as_deref(), Ok(r#"{"name":"items/a","price":"2"}"#));
    let listed = Flat::Listed(vec!["key".into()]);
    let listed = RouteTranscode { unknown_query: listed, ..route(&rules) };
    let listed = Transcode::build(&listed, proto()).unwrap();
    assert!(made(&listed, "GET /v1/items/a?key=1", "").is_ok());
    assert!(made(&listed, "GET /v1/items/a?other=1", "").is_err());
}

#[test]
fn what_does_not_fit_the_services_is_told_with_its_place() {
    let told = |from: RouteTranscode| Transcode::build(&from, proto()).err().unwrap();
    let one = |rule| told(route(&[rule]));
    for ((field, problem), at, expected) in [
        (one(("No", "GET", "/a", "")), "bindings[0].selector", "no method"),
        (one(("Get", "GET", "/{nothing}", "")), "bindings[0]", "has no field `nothing`"),
        (one(("Get", "GET", "/{tags}", "")), "bindings[0]", "is a list"),
        (one(("Get", "GET", "/{part}", "")), "bindings[0]", "is a list or a message"),
        (one(("Get", "GET", "/{name.x}", "")), "bindings[0]", "no message"),
        (one(("Get", "GET", "/a/**/*", "")), "bindings[0]", "literals only"),
        (one(("Get", "GET", "/{part.name}/{part.name=*}", "")), "bindings[0]", "twice"),
        (one(("Get", "PUT", "/{name}", "name")), "bindings[0]", "is in the path, too"),
        (one(("Get", "PUT", "/{part.name}", "part")), "bindings[0]", "is in the path, too"),
        (one(("Get", "PUT", "/a", "nothing")), "bindings[0]", "has no field"),
        (
            told(route(&[("Get", "GET", "/{name}", ""), ("Put", "GET", "/{name=*}", "")])),
            "bindings[1]",
            "GET /* of shop.v1.Shop.Put is that of shop.v1.Shop.Get",
        ),
        (
            told(RouteTranscode { services: vec!["shop.v1.No".into()], ..route(&[]) }),
            "services[0]",
            "it has: shop.v1.Shop",
        ),
        (told(route(&[])), "services", "no method has an http rule"),
    ] {
        assert_eq!(field, at, "{problem}");
        assert!(problem.contains(expected), "{problem}");
    }
    let auto = RouteTranscode { auto_mapping: true, ..route(&[("Get", "GET", "/{name}", "")]) };
    let auto = Transcode::build(&auto, proto()).unwrap();
    let put = made(&auto, "POST /shop.v1.Shop/Put", r#"{"price":1}"#);
    assert_eq!(put.as_deref(), Ok(r#"{"price":"1"}"#));
    assert_eq!(made(&auto, "POST /shop.v1.Shop/Get", "{}"), Err("no binding".into()));
}

#[test]
fn the_same_descriptors_are_built_once() {
    let memory = super::Memory::default();
    let set = FileDescriptorSet { file: vec![file(&[vec![Kind::Text]], 1)] }.encode_to_vec();
    let first = memory.proto("a", &set).unwrap();
    assert!(Arc::ptr_eq(&first, &memory.proto("a", &set).unwrap()));
    assert!(!Arc::ptr_eq(&first, &memory.proto("b", &set).unwrap()));
    assert!(memory.proto("a", b"\xff").is_err());
}

// Random types and messages.

/// What a field is of; types point at messages by their place.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Scalar(usize),
    Text,
    Raw,
    Choice,
    Message(usize),
    /// A list of one of these.
    List(usize),
    Map(usize),
    Oneof(usize),
    Optional(usize),
}

const SCALARS: [Type; 13] = [
    Type::Double,
    Type::Float,
    Type::Int32,
    Type::Int64,
    Type::Uint32,
    Type::Uint64,
    Type::Sint32,
    Type::Sint64,
    Type::Fixed32,
    Type::Fixed64,
    Type::Sfixed32,
    Type::Sfixed64,
    Type::Bool,
];

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (0..SCALARS.len()).prop_map(Kind::Scalar),
        Just(Kind::Text),
        Just(Kind::Raw),
        Just(Kind::Choice),
        (0..8usize).prop_map(Kind::Message),
        (0..SCALARS.len() + 4).prop_map(Kind::List),
        (0..SCALARS.len() + 4).prop_map(Kind::Map),
        (0..SCALARS.len() + 4).prop_map(Kind::Oneof),
        (0..SCALARS.len() + 4).prop_map(Kind::Optional),
    ]
}

/// A file with these messages: `.r.M0`, `.r.M1` and so on. Numbers are `step` apart.
fn file(messages: &[Vec<Kind>], step: i32) -> FileDescriptorProto {
    let count = messages.len().max(1);
    let of = |field: &mut FieldDescriptorProto, place: usize| {
        let kind = match place {
            at if at < SCALARS.len() => SCALARS[at],
            at if at == SCALARS.len() => Type::String,
            at if at == SCALARS.len() + 1 => Type::Bytes,
            at if at == SCALARS.len() + 2 => Type::Enum,
            _ => Type::Message,
        };
        field.set_type(kind);
        match kind {
            Type::Enum => field.type_name = Some(".r.Choice".into()),
            Type::Message => field.type_name = Some(format!(".r.M{}", place % count)),
            _ => {}
        }
    };
    let message = |at: usize, kinds: &Vec<Kind>| {
        let mut built = DescriptorProto { name: Some(format!("M{at}")), ..Default::default() };
        let mut synthetic = Vec::new();
        let has_oneof = kinds.iter().any(|kind| matches!(kind, Kind::Oneof(_)));
        for (n, kind) in kinds.iter().enumerate() {
            let mut field = FieldDescriptorProto {
                name: Some(format!("field_{n}x")),
                number: Some(1 + n as i32 * step),
                ..Default::default()
            };
            field.set_label(Label::Optional);
            match *kind {
                Kind::Scalar(place) => of(&mut field, place),
                Kind::Text => of(&mut field, SCALARS.len()),
                Kind::Raw => of(&mut field, SCALARS.len() + 1),
                Kind::Choice => of(&mut field, SCALARS.len() + 2),
                Kind::Message(place) => {
                    field.set_type(Type::Message);
                    field.type_name = Some(format!(".r.M{}", place % count));
                }
                Kind::List(place) => {
                    of(&mut field, place);
                    field.set_label(Label::Repeated);
                }
                Kind::Map(place) => {
                    let name = format!("Field{n}xEntry");
                    let mut key = FieldDescriptorProto {
                        name: Some("key".into()),
                        number: Some(1),
                        ..Default::default()
                    };
                    key.set_label(Label::Optional);
                    key.set_type(if place % 2 == 0 { Type::String } else { Type::Int64 });
                    let mut value = FieldDescriptorProto {
                        name: Some("value".into()),
                        number: Some(2),
                        ..Default::default()
                    };
                    value.set_label(Label::Optional);
                    of(&mut value, place);
                    built.nested_type.push(DescriptorProto {
                        name: Some(name.clone()),
                        field: vec![key, value],
                        options: Some(MessageOptions {
                            map_entry: Some(true),
                            ..Default::default()
                        }),
                        ..Default::default()
                    });
                    field.set_type(Type::Message);
                    field.set_label(Label::Repeated);
                    field.type_name = Some(format!(".r.M{at}.{name}"));
                }
                Kind::Oneof(place) => {
                    of(&mut field, place);
                    field.oneof_index = Some(0);
                }
                Kind::Optional(place) => {
                    of(&mut field, place);
                    field.proto3_optional = Some(true);
                    field.oneof_index = Some(i32::from(has_oneof) + synthetic.len() as i32);
                    synthetic.push(format!("_field_{n}x"));
                }
            }
            built.field.push(field);
        }
        if has_oneof {
            built.oneof_decl.push(OneofDescriptorProto { name: Some("one".into()), options: None });
        }
        let more = synthetic.into_iter();
        built
            .oneof_decl
            .extend(more.map(|name| OneofDescriptorProto { name: Some(name), options: None }));
        built
    };
    let value = |(name, number): (&str, i32)| EnumValueDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        options: None,
    };
    FileDescriptorProto {
        name: Some("r.proto".into()),
        package: Some("r".into()),
        syntax: Some("proto3".into()),
        message_type: messages.iter().enumerate().map(|(at, kinds)| message(at, kinds)).collect(),
        enum_type: vec![EnumDescriptorProto {
            name: Some("Choice".into()),
            value: [("NONE", 0), ("ONE", 1), ("MANY", 1_000), ("LESS", -5)].map(value).into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Bytes of any message of that type, guided by `random`.
fn any_message(
    message: &prost_reflect::MessageDescriptor,
    random: &mut impl FnMut() -> u64,
    depth: usize,
    out: &mut Vec<u8>,
) {
    for field in message.fields() {
        if random().is_multiple_of(3) {
            continue;
        }
        let times = if field.is_list() || field.is_map() { random() % 4 } else { 1 };
        for _ in 0..times {
            let number = field.number();
            match field.kind() {
                prost_reflect::Kind::Message(inner) => {
                    if depth > 4 && !field.is_map() {
                        continue;
                    }
                    let mut content = Vec::new();
                    any_message(&inner, random, depth + 1, &mut content);
                    write_bytes(out, number, &content);
                }
                prost_reflect::Kind::String => {
                    let texts = ["", "a", "\u{0}\u{1f}\"\\/", "ü😁", "line\nline"];
                    let text = texts[(random() % texts.len() as u64) as usize];
                    write_bytes(out, number, text.as_bytes());
                }
                prost_reflect::Kind::Bytes => {
                    let bytes = random().to_le_bytes();
                    write_bytes(out, number, &bytes[..(random() % 9) as usize]);
                }
                prost_reflect::Kind::Enum(_) => {
                    let values = [0i64, 1, 1_000, -5, 7];
                    write_tag(out, number, WireType::Varint);
                    write_varint(out, values[(random() % 5) as usize] as u64);
                }
                prost_reflect::Kind::Bool => {
                    write_tag(out, number, WireType::Varint);
                    write_varint(out, random() % 2);
                }
                prost_reflect::Kind::Double
                | prost_reflect::Kind::Fixed64
                | prost_reflect::Kind::Sfixed64 => {
                    write_tag(out, number, WireType::Fixed64);
                    out.extend_from_slice(&random().to_le_bytes());
                }
                prost_reflect::Kind::Float
                | prost_reflect::Kind::Fixed32
                | prost_reflect::Kind::Sfixed32 => {
                    write_tag(out, number, WireType::Fixed32);
                    out.extend_from_slice(&(random() as u32).to_le_bytes());
                }
                prost_reflect::Kind::Int32 => {
                    write_tag(out, number, WireType::Varint);
                    write_varint(out, i64::from(random() as i32) as u64);
                }
                prost_reflect::Kind::Uint32 | prost_reflect::Kind::Sint32 => {
                    write_tag(out, number, WireType::Varint);
                    write_varint(out, u64::from(random() as u32));
                }
                _ => {
                    write_tag(out, number, WireType::Varint);
                    write_varint(out, random());
                }
            }
        }
    }
}

/// What another implementation makes of a message: without an order of maps, and with one NaN.
fn told(message: &DynamicMessage) -> serde_json::Value {
    serde_json::to_value(message).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_messages_of_random_types_come_back(
        messages in vec(vec(kind(), 0..9), 1..5),
        step in prop_oneof![Just(1), Just(7), Just(70)],
        seed in any::<u64>(),
        flags in any::<[bool; 4]>(),
    ) {
        let file = file(&messages, step);
        let pool = DescriptorPool::from_file_descriptor_set(FileDescriptorSet { file: vec![file] });
        let pool = pool.unwrap();
        let schema = Schema::of(&pool).unwrap();
        let descriptor = pool.get_message_by_name("r.M0").unwrap();
        let index = schema.find("r.M0").unwrap();
        let mut state = seed | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut bytes = Vec::new();
        any_message(&descriptor, &mut random, 0, &mut bytes);
        let before = DynamicMessage::decode(descriptor.clone(), &*bytes).unwrap();

        let [always, enum_numbers, proto_names, pretty] = flags;
        let printing = Printing { schema: &schema, always, enum_numbers, proto_names, pretty };
        let mut text = Vec::new();
        printing.message(&bytes, index, &mut text).unwrap();
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok());
        let reading = Reading { schema: &schema, ignore_unknown: false, any_case: false };
        let mut again = Vec::new();
        let read = reading.message(&text, index, &mut again);
        prop_assert!(read.is_ok(), "{:?} {}", read, String::from_utf8_lossy(&text));
        let after = DynamicMessage::decode(descriptor.clone(), &*again).unwrap();
        prop_assert_eq!(told(&before), told(&after), "{}", String::from_utf8_lossy(&text));

        // What another implementation writes means the same to ours.
        let theirs = serde_json::to_vec(&before).unwrap();
        let mut again = Vec::new();
        let read = reading.message(&theirs, index, &mut again);
        prop_assert!(read.is_ok(), "{:?} {}", read, String::from_utf8_lossy(&theirs));
        let after = DynamicMessage::decode(descriptor, &*again).unwrap();
        prop_assert_eq!(told(&before), told(&after), "{}", String::from_utf8_lossy(&theirs));
    }

    #[test]
    fn any_bytes_end_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        super::fuzz_transcode(&bytes);
        let mut fields = Fields::of(&bytes);
        while let Ok(Some(_)) = fields.next() {}
    }
}
