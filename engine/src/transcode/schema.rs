//! The types of a set of descriptors, laid out for reading and writing messages: everything is an index,
//! and what JSON says of a field is at hand.

use std::collections::HashMap;

use prost_reflect::{
    DescriptorPool, ExtensionDescriptor, FieldDescriptor, Kind as Reflected, MessageDescriptor,
};

use crate::limits;

pub type MessageIndex = u32;
pub type EnumIndex = u32;

/// All types of a set.
#[derive(Debug, Default)]
pub struct Schema {
    messages: Vec<Message>,
    enums: Vec<Enum>,
    by_name: HashMap<Box<str>, MessageIndex, foldhash::fast::FixedState>,
}

#[derive(Debug)]
pub struct Message {
    pub name: Box<str>,
    /// By number.
    pub fields: Box<[Field]>,
    /// Numbers below its length are places in `fields`, plus 1.
    dense: Box<[u16]>,
    by_name: HashMap<Box<str>, u16, foldhash::fast::FixedState>,
    pub known: Known,
    /// How many oneofs it has.
    pub oneofs: usize,
}

#[derive(Debug)]
pub struct Field {
    pub number: u32,
    pub name: Box<str>,
    pub json_name: Box<str>,
    pub kind: Kind,
    pub shape: Shape,
    pub packed: bool,
    /// Whether it can be there with its default value.
    pub presence: bool,
    /// Place in the message's oneofs.
    pub oneof: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    One,
    List,
    /// The kind is that of the entry's message.
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Message(MessageIndex),
    /// proto2's.
    Group(MessageIndex),
    Enum(EnumIndex),
}

/// Types with a form of their own in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    #[default]
    None,
    Any,
    Timestamp,
    Duration,
    FieldMask,
    Struct,
    Value,
    ListValue,
    /// A message that stands for its only field.
    Wrapper,
    /// `google.api.HttpBody`: as any message, but where it is a whole body.
    HttpBody,
}

#[derive(Debug)]
pub struct Enum {
    pub name: Box<str>,
    /// Of each number the first name.
    by_number: HashMap<i32, Box<str>, foldhash::fast::FixedState>,
    by_name: HashMap<Box<str>, i32, foldhash::fast::FixedState>,
    /// Names in lower case.
    by_lower: HashMap<Box<str>, i32, foldhash::fast::FixedState>,
    pub is_null: bool,
    pub default: i32,
}

impl Schema {
    /// # Errors
    /// What of the set is past a bound.
    pub fn of(pool: &DescriptorPool) -> Result<Schema, String> {
        let mut schema = Schema::default();
        let mut enums: HashMap<String, EnumIndex> = HashMap::new();
        for one in pool.all_enums() {
            enums.insert(one.full_name().into(), schema.enums.len() as u32);
            let mut built = Enum {
                name: one.full_name().into(),
                by_number: HashMap::default(),
                by_name: HashMap::default(),
                by_lower: HashMap::default(),
                is_null: one.full_name() == "google.protobuf.NullValue",
                default: one.default_value().number(),
            };
            for value in one.enum_descriptor_proto().value.iter() {
                let name = value.name();
                built.by_number.entry(value.number()).or_insert_with(|| name.into());
                built.by_name.insert(name.into(), value.number());
                built.by_lower.entry(name.to_ascii_lowercase().into()).or_insert(value.number());
            }
            schema.enums.push(built);
        }
        let all: Vec<MessageDescriptor> = pool.all_messages().collect();
        for (at, one) in all.iter().enumerate() {
            schema.by_name.insert(one.full_name().into(), at as u32);
        }
        for one in &all {
            let built = Message::of(one, &schema.by_name, &enums)?;
            schema.messages.push(built);
        }
        Ok(schema)
    }

    /// Indexes come from this schema, so they are in it.
    pub fn message(&self, index: MessageIndex) -> &Message {
        &self.messages[index as usize]
    }

    pub fn enumeration(&self, index: EnumIndex) -> &Enum {
        &self.enums[index as usize]
    }

    pub fn find(&self, name: &str) -> Option<MessageIndex> {
        self.by_name.get(name).copied()
    }
}

impl Message {
    fn of(
        from: &MessageDescriptor,
        messages: &HashMap<Box<str>, MessageIndex, foldhash::fast::FixedState>,
        enums: &HashMap<String, EnumIndex>,
    ) -> Result<Message, String> {
        let kind = |kind: Reflected, group: bool| kind_of(&kind, group, messages, enums);
        let synthetic = |field: &FieldDescriptor| {
            let oneof = field.containing_oneof()?;
            (!oneof.is_synthetic()).then(|| oneof.full_name().to_owned())
        };
        let mut oneofs: Vec<String> = Vec::new();
        let mut fields: Vec<Field> = Vec::new();
        for field in from.fields() {
            let oneof = synthetic(&field).map(|name| {
                let at = oneofs.iter().position(|own| *own == name);
                at.unwrap_or_else(|| {
                    oneofs.push(name);
                    oneofs.len() - 1
                }) as u16
            });
            fields.push(Field {
                number: field.number(),
                name: field.name().into(),
                json_name: field.json_name().into(),
                kind: kind(field.kind(), field.is_group()),
                shape: match (field.is_map(), field.is_list()) {
                    (true, _) => Shape::Map,
                    (_, true) => Shape::List,
                    _ => Shape::One,
                },
                packed: field.is_packed(),
                presence: field.supports_presence(),
                oneof,
            });
        }
        let extension = |field: ExtensionDescriptor| {
            let name: Box<str> = format!("[{}]", field.full_name()).into();
            Field {
                number: field.number(),
                name: name.clone(),
                json_name: name,
                kind: kind(field.kind(), field.is_group()),
                shape: if field.is_list() { Shape::List } else { Shape::One },
                packed: field.is_packed(),
                presence: true,
                oneof: None,
            }
        };
        fields.extend(from.extensions().map(extension));
        if fields.len() > limits::MESSAGE_FIELDS {
            return Err(format!("{} has too many fields", from.full_name()));
        }
        fields.sort_by_key(|field| field.number);
        let most = fields.iter().map(|field| field.number).filter(|n| *n < 256).max();
        let mut dense = vec![0u16; most.map_or(0, |most| most as usize + 1)];
        let mut by_name = HashMap::default();
        for (at, field) in fields.iter().enumerate() {
            if let Some(place) = dense.get_mut(field.number as usize) {
                *place = at as u16 + 1;
            }
            by_name.insert(field.json_name.clone(), at as u16);
        }
        // A JSON name goes before another field's own.
        for (at, field) in fields.iter().enumerate() {
            by_name.entry(field.name.clone()).or_insert(at as u16);
        }
        let oneofs = oneofs.len();
        let name: Box<str> = from.full_name().into();
        let known = known(&name, &fields);
        Ok(Message { name, fields: fields.into(), dense: dense.into(), by_name, known, oneofs })
    }

    /// Place of the field with that number.
    #[inline]
    pub fn place(&self, number: u32) -> Option<usize> {
        match self.dense.get(number as usize) {
            Some(0) => None,
            Some(at) => Some(usize::from(*at) - 1),
            None => self.fields.binary_search_by_key(&number, |field| field.number).ok(),
        }
    }

    /// Place of the field that JSON calls so: by its name there, or its own.
    #[inline]
    pub fn place_named(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).map(|at| usize::from(*at))
    }
}

/// The last name counts, and only if the message is what that name says: descriptors come from anyone.
fn known(name: &str, fields: &[Field]) -> Known {
    let is = |number: u32, kind: Kind, shape: Shape| {
        fields
            .iter()
            .any(|field| field.number == number && field.kind == kind && field.shape == shape)
    };
    let message = |number: u32, shape: Shape| {
        fields.iter().any(|field| {
            field.number == number && matches!(field.kind, Kind::Message(_)) && field.shape == shape
        })
    };
    let (one, list) = (Shape::One, Shape::List);
    let (known, fits) = match name {
        "google.protobuf.Any" => (Known::Any, is(1, Kind::String, one) && is(2, Kind::Bytes, one)),
        "google.protobuf.Timestamp" => {
            (Known::Timestamp, is(1, Kind::Int64, one) && is(2, Kind::Int32, one))
        }
        "google.protobuf.Duration" => {
            (Known::Duration, is(1, Kind::Int64, one) && is(2, Kind::Int32, one))
        }
        "google.protobuf.FieldMask" => (Known::FieldMask, is(1, Kind::String, list)),
        "google.protobuf.Struct" => (Known::Struct, message(1, Shape::Map)),
        "google.protobuf.Value" => (
            Known::Value,
            is(2, Kind::Double, one)
                && is(3, Kind::String, one)
                && is(4, Kind::Bool, one)
                && message(5, one)
                && message(6, one),
        ),
        "google.protobuf.ListValue" => (Known::ListValue, message(1, list)),
        "google.api.HttpBody" => {
            (Known::HttpBody, is(1, Kind::String, one) && is(2, Kind::Bytes, one))
        }
        "google.protobuf.DoubleValue"
        | "google.protobuf.FloatValue"
        | "google.protobuf.Int64Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.BoolValue"
        | "google.protobuf.StringValue"
        | "google.protobuf.BytesValue" => (
            Known::Wrapper,
            matches!(fields, [Field { number: 1, shape: Shape::One, kind, .. }]
                if !matches!(kind, Kind::Message(_) | Kind::Group(_) | Kind::Enum(_))),
        ),
        _ => return Known::None,
    };
    if fits { known } else { Known::None }
}

fn kind_of(
    kind: &Reflected,
    group: bool,
    messages: &HashMap<Box<str>, MessageIndex, foldhash::fast::FixedState>,
    enums: &HashMap<String, EnumIndex>,
) -> Kind {
    match kind {
        Reflected::Double => Kind::Double,
        Reflected::Float => Kind::Float,
        Reflected::Int32 => Kind::Int32,
        Reflected::Int64 => Kind::Int64,
        Reflected::Uint32 => Kind::Uint32,
        Reflected::Uint64 => Kind::Uint64,
        Reflected::Sint32 => Kind::Sint32,
        Reflected::Sint64 => Kind::Sint64,
        Reflected::Fixed32 => Kind::Fixed32,
        Reflected::Fixed64 => Kind::Fixed64,
        Reflected::Sfixed32 => Kind::Sfixed32,
        Reflected::Sfixed64 => Kind::Sfixed64,
        Reflected::Bool => Kind::Bool,
        Reflected::String => Kind::String,
        Reflected::Bytes => Kind::Bytes,
        // The pool has resolved all names, so these are there.
        Reflected::Message(message) => {
            let index = messages.get(message.full_name()).copied().unwrap_or_default();
            if group { Kind::Group(index) } else { Kind::Message(index) }
        }
        Reflected::Enum(one) => Kind::Enum(enums.get(one.full_name()).copied().unwrap_or_default()),
    }
}

impl Enum {
    pub fn name_of(&self, number: i32) -> Option<&str> {
        self.by_number.get(&number).map(AsRef::as_ref)
    }

    pub fn number_of(&self, name: &str, any_case: bool) -> Option<i32> {
        let exact = self.by_name.get(name);
        match exact {
            None if any_case => self.by_lower.get(&*name.to_ascii_lowercase()).copied(),
            exact => exact.copied(),
        }
    }
}
